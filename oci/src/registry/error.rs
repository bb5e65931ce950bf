//! What can go wrong between here and a registry.

use std::io;

use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_http::{HttpError, Tls};
use reqwest::StatusCode;
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
    #[error("the registry `{registry}` denies access to `{repository}`{detail}")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What the registry says about it, after a colon; may be empty.
        detail: String,
    },
    /// The registry has no such repository, and does not make one.
    #[error("the registry `{registry}` has no repository: `{repository}`")]
    NoRepository {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
    },
    /// The registry has had enough of us, also after several tries.
    #[error("the registry `{registry}` takes no more requests for now{detail}")]
    Busy {
        /// The registry.
        registry: String,
        /// What the registry says about it, after a colon; may be empty.
        detail: String,
    },
    /// The tag names another image, and the registry does not let anybody change that.
    #[error(
        "the tag is immutable and names another image, {found}: `{registry}/{repository}:{tag}`"
    )]
    Immutable {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// The image that has it.
        found: Digest,
    },
    /// The registry has not all that a manifest names.
    #[error("the registry `{registry}` lacks what the manifest names{detail}")]
    Incomplete {
        /// The registry.
        registry: String,
        /// What the registry says about it, after a colon; may be empty.
        detail: String,
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
    /// The authorities that are to sign its certificate cannot be used.
    #[error("the authorities of the registry cannot be used: `{registry}`")]
    Setup {
        /// The registry.
        registry: String,
        /// Why.
        source: HttpError,
    },
    /// The registry's name is none.
    #[error("not the name of a registry: `{0}`")]
    Name(String),
    /// Credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A blob that the registry lacks cannot be made.
    #[error(transparent)]
    Source(BuildError),
    /// A blob or document cannot be read or kept here.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl RegistryError {
    /// The error of an answer that was not expected, whose body may say why.
    pub(super) fn refusal(
        registry: &str,
        repository: &str,
        request: &'static str,
        status: StatusCode,
        body: &[u8],
    ) -> Self {
        let errors = codes(body).unwrap_or_default();
        let says = |wanted: &[&str]| {
            errors
                .iter()
                .any(|error| wanted.contains(&error.code.as_str()))
        };
        let texts: Vec<_> = errors.iter().map(Code::text).collect();
        let detail = if texts.is_empty() {
            String::new()
        } else {
            format!(": {}", texts.join(", "))
        };
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Busy { registry, detail },
            _ if says(&["TOOMANYREQUESTS"]) => Self::Busy { registry, detail },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied {
                registry,
                repository,
                detail,
            },
            _ if says(&["DENIED", "UNAUTHORIZED"]) => Self::Denied {
                registry,
                repository,
                detail,
            },
            StatusCode::NOT_FOUND if says(&["NAME_UNKNOWN"]) => Self::NoRepository {
                registry,
                repository,
            },
            _ if status.is_client_error() && says(&INCOMPLETE) => {
                Self::Incomplete { registry, detail }
            }
            _ => Self::Unexpected {
                registry,
                status,
                request,
                detail,
            },
        }
    }
}

/// How registries say that a manifest refers to what is not there.
const INCOMPLETE: [&str; 2] = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"];

/// One error of a registry's answer (distribution specification, "Error Codes").
#[derive(Deserialize)]
pub(super) struct Code {
    pub(super) code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Code {
    /// What it says beside the code; may be empty.
    pub(super) fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    fn text(&self) -> String {
        let text = match self.message() {
            "" => self.code.clone(),
            message => format!("{message} ({})", self.code),
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

impl From<RegistryError> for BuildError {
    fn from(error: RegistryError) -> Self {
        let (kind, hint) = match error {
            RegistryError::Source(error) => return error,
            RegistryError::Interrupted => return Self::interrupted(),
            ref error => (kind(error), hint(error)),
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

fn kind(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::Credentials(_)
        | RegistryError::NotFound(_)
        | RegistryError::NoRepository { .. }
        | RegistryError::Platform { .. }
        | RegistryError::Name(_)
        | RegistryError::Setup { .. } => ErrorKind::Input,
        RegistryError::Unreachable { .. }
        | RegistryError::Denied { .. }
        | RegistryError::Busy { .. }
        | RegistryError::Immutable { .. }
        | RegistryError::Incomplete { .. }
        | RegistryError::Unexpected { .. }
        | RegistryError::Protocol { .. } => ErrorKind::Unavailable,
        RegistryError::Mismatch { .. } | RegistryError::Io(_) => ErrorKind::Failed,
        RegistryError::Source(error) => error.kind,
        RegistryError::Interrupted => ErrorKind::Interrupted,
    }
}

fn hint(error: &RegistryError) -> Option<String> {
    Some(match error {
        RegistryError::Unreachable { registry, source } => match source.tls() {
            Some(Tls::Untrusted) => format!(
                "trust the authority that signed its certificate: `ca = \"FILE.pem\"` in `[registries.\"{registry}\"]`"
            ),
            Some(Tls::Absent) => format!(
                "it does not speak TLS: set `insecure = true` in `[registries.\"{registry}\"]` if that is right"
            ),
            None => format!(
                "check the network and the name; a registry without TLS needs `insecure = true` in `[registries.\"{registry}\"]`"
            ),
        },
        RegistryError::Denied { registry, .. } => {
            format!("log in with `docker login {registry}` as somebody who may")
        }
        RegistryError::Credentials(_) => {
            "check the Docker configuration, or log in again".to_owned()
        }
        RegistryError::NoRepository { .. } => {
            "check the name; this registry wants a repository to be created before it is pushed to"
                .to_owned()
        }
        RegistryError::Busy { registry, .. } => {
            format!("try again later; `docker login {registry}` may raise the limit")
        }
        RegistryError::Immutable { .. } => {
            "choose another tag, or remove the old image from the registry".to_owned()
        }
        RegistryError::NotFound(_) => "check the name and the tag".to_owned(),
        RegistryError::Setup { registry, .. } => {
            format!(
                "check the files that `ca`, `cert` and `key` name in `[registries.\"{registry}\"]`"
            )
        }
        _ => return None,
    })
}
