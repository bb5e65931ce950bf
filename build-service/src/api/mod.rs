//! The service over HTTP.

mod builds;
mod caller;
mod events;
mod files;
mod images;
mod refusal;
mod system;
mod tokens;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use imagespec_build_api::{VERSION, VERSION_HEADER};
use imagespec_core::error::BuildError;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use builds::{again, stop};
pub(crate) use caller::Caller;
pub(crate) use events::{so_far, stream_of};
pub(crate) use refusal::Refusal;

use crate::page;
use crate::service::Service;

/// The most bytes of a request that is not a file: a plan of a hundred thousand files.
const DOCUMENT: usize = 64 << 20;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "imagespec build service",
        description = "Takes plans of container images and has them built.\n\nEvery request but those for health, readiness, metrics and this document needs a token: `Authorization: Bearer …`. A token is for one project; one that is for all names the project in the header `imagespec-project`. Answers that are no success are `Failure`s.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Security),
    security(("token" = [])),
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", bearer);
    }
}

fn documented() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(builds::list, builds::submit))
        .routes(routes!(builds::show))
        .routes(routes!(builds::cancel))
        .routes(routes!(builds::retry))
        .routes(routes!(builds::log))
        .routes(routes!(events::follow))
        .routes(routes!(files::missing))
        .routes(routes!(files::pack))
        .routes(routes!(files::offset, files::upload))
        .routes(routes!(images::find))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke))
        .routes(routes!(system::version))
        .routes(routes!(system::health))
        .routes(routes!(system::readiness))
        .routes(routes!(system::metrics))
}

/// The service's API as an `OpenAPI` document.
pub fn openapi() -> String {
    let (_, document) = documented().split_for_parts();
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Everything that the service answers.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let (documented, document) = documented().split_for_parts();
    let document = Arc::new(document);
    let served = move || std::future::ready(Json(Arc::clone(&document)));
    documented
        .route("/openapi.json", get(served))
        .merge(page::router())
        .fallback(nowhere)
        .method_not_allowed_fallback(otherwise)
        .layer(DefaultBodyLimit::max(DOCUMENT))
        .layer(from_fn(versions))
        .with_state(service)
}

async fn nowhere() -> Refusal {
    Refusal::absent("nothing is here")
}

async fn otherwise(method: Method) -> Refusal {
    let message = format!("this cannot be asked for with `{method}`");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, BuildError::input(message))
}

/// Refuses versions of the API that are not spoken here, and says which is.
async fn versions(request: Request, next: Next) -> Response {
    let named = request.headers().get(VERSION_HEADER);
    let spoken = named.is_none_or(|named| named.as_bytes() == VERSION.to_string().as_bytes());
    let mut response = if spoken {
        next.run(request).await
    } else {
        let named = named.and_then(|named| named.to_str().ok()).unwrap_or("?");
        let newer = named.parse::<u32>().is_ok_and(|named| named > VERSION);
        let message = format!(
            "the build service speaks version {VERSION} of the API, and this client version {named}"
        );
        let hint = if newer {
            "update the service, or use an older client"
        } else {
            "update the client"
        };
        let error = BuildError::unavailable(message).hint(hint);
        Refusal::new(StatusCode::BAD_REQUEST, error).into_response()
    };
    let name = HeaderName::from_static(VERSION_HEADER);
    let headers = response.headers_mut();
    headers.insert(name, HeaderValue::from(VERSION));
    response
}
