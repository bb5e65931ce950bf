//! What can go wrong between here and a registry.

use std::io;

use futures::StreamExt as _;
use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_http::HttpError;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::credentials::CredentialError;

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer came.
    #[error("cannot reach the registry `{registry}`")]
    Unreachable {
        /// The registry.
        registry: String,
        /// Why.
        source: HttpError,
    },
    /// The registry refuses who we are, or nobody said who that is.
    #[error("the registry `{registry}` denies access to `{repository}`")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
    },
    /// The image or the blob is not there.
    #[error("not in the registry: `{0}`")]
    NotFound(String),
    /// The registry answered what it should not.
    #[error("the registry `{registry}` answered {status} to {request}{detail}")]
    Unexpected {
        /// The registry.
        registry: String,
        /// The answer.
        status: StatusCode,
        /// What was asked.
        request: &'static str,
        /// What the registry says about it, after a colon; may be empty.
        detail: String,
    },
    /// The registry's answers contradict the protocol.
    #[error("the registry `{registry}` breaks the protocol: {problem}")]
    Protocol {
        /// The registry.
        registry: String,
        /// How.
        problem: &'static str,
    },
    /// Content is not what its digest says.
    #[error("content does not match its digest: expected {expected}, found {found}")]
    Mismatch {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The image is for another platform.
    #[error("the image is for another platform than `{wanted}`: `{found}`")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The registry's name is none.
    #[error("not the name of a registry: `{0}`")]
    Name(String),
    /// Credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A blob or document cannot be read or kept here.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl RegistryError {
    /// The error of an answer that was not expected, whose body may say why.
    pub(super) async fn unexpected(
        registry: &str,
        repository: &str,
        request: &'static str,
        response: Response,
    ) -> Self {
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Self::Denied {
                registry: registry.to_owned(),
                repository: repository.to_owned(),
            };
        }
        let body = prefix(response).await;
        let detail = codes(&body).map(|errors| {
            let errors = errors.into_iter().map(|error| error.text());
            format!(": {}", errors.collect::<Vec<_>>().join(", "))
        });
        Self::Unexpected {
            registry: registry.to_owned(),
            status,
            request,
            detail: detail.unwrap_or_default(),
        }
    }
}

/// One error of a registry's answer (distribution specification, "Error Codes").
#[derive(Deserialize)]
pub(super) struct Code {
    pub(super) code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Code {
    fn text(&self) -> String {
        let text = match &self.message {
            Some(message) => format!("{} ({message})", self.code),
            None => self.code.clone(),
        };
        text.chars()
            .filter(|letter| !letter.is_control())
            .take(300)
            .collect()
    }
}

/// The errors in the body of an answer, if that is what it holds.
pub(super) fn codes(body: &[u8]) -> Option<Vec<Code>> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Code>,
    }
    let Body { errors } = serde_json::from_slice(body).ok()?;
    (!errors.is_empty()).then_some(errors)
}

/// The first 64 KiB of a body, or what came of them.
pub(super) async fn prefix(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(chunk)) = stream.next().await {
        body.extend_from_slice(&chunk);
        if body.len() > 64 << 10 {
            break;
        }
    }
    body
}

impl From<RegistryError> for BuildError {
    fn from(error: RegistryError) -> Self {
        let (kind, hint) = match &error {
            RegistryError::Unreachable { registry, .. } => (
                ErrorKind::Unavailable,
                Some(format!(
                    "check the network and the name; a registry without TLS needs `[registries.\"{registry}\"]` with `insecure = true`"
                )),
            ),
            RegistryError::Denied { registry, .. } => (
                ErrorKind::Unavailable,
                Some(format!("log in with `docker login {registry}`")),
            ),
            RegistryError::Credentials(_) => (
                ErrorKind::Input,
                Some("check the Docker configuration, or log in again".to_owned()),
            ),
            RegistryError::NotFound(_) => (
                ErrorKind::Input,
                Some("check the name and the tag".to_owned()),
            ),
            RegistryError::Platform { .. } | RegistryError::Name(_) => (ErrorKind::Input, None),
            RegistryError::Unexpected { .. } | RegistryError::Protocol { .. } => {
                (ErrorKind::Unavailable, None)
            }
            RegistryError::Mismatch { .. } | RegistryError::Io(_) => (ErrorKind::Failed, None),
            RegistryError::Interrupted => return Self::interrupted(),
        };
        let built = Self::new(kind, error.to_string());
        let built = match std::error::Error::source(&error) {
            Some(source) => built.caused_by(source),
            None => built,
        };
        match hint {
            Some(hint) => built.hint(hint),
            None => built,
        }
    }
}
