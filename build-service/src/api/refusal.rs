//! What is answered to a request that is refused or fails.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use imagespec_build_api::Failure;
use imagespec_core::error::{BuildError, ErrorKind};

use crate::database;

/// A request that is refused or failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    pub(crate) error: Box<BuildError>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: BuildError) -> Self {
        Self {
            status,
            error: Box::new(error),
        }
    }

    /// Something is not there, or not for whoever asks: which of both is not told.
    pub(crate) fn absent(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, BuildError::input(message))
    }

    /// Whoever asks has no token that is known.
    pub(crate) fn unknown() -> Self {
        let error = BuildError::unavailable("the build service does not know the token");
        let error = error.hint("whoever runs the service makes tokens: `POST /v1/tokens`");
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    /// The token does not allow it.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        let error = BuildError::unavailable(message);
        Self::new(StatusCode::FORBIDDEN, error)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Self {
        let status = match error.kind {
            ErrorKind::Input => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Interrupted => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error)
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        database::failed(&error).into()
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        let error = BuildError::input("the request cannot be read").caused_by(&rejection);
        Self::new(rejection.status(), error)
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        let error = BuildError::input("the query cannot be read").caused_by(&rejection);
        Self::new(rejection.status(), error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let unknown = self.is_unknown();
        let body = Json(Failure { error: *self.error });
        let mut response = (self.status, body).into_response();
        if unknown {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
