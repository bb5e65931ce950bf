//! What can go wrong between here and a server.

use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use reqwest::StatusCode;
use url::Url;

/// A request that failed for good. URLs are shown without user, password and query, where secrets live.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer came, or it broke off, and neither did a retry help.
    #[error("cannot reach `{url}`")]
    Transport {
        /// The URL, redacted.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server answered, but not with success.
    #[error("`{url}` answered {status}")]
    Status {
        /// The URL, redacted.
        url: String,
        /// The answer.
        status: StatusCode,
        /// The first part of the answer's body.
        body: String,
    },
    /// The answer is larger than it may be.
    #[error("`{url}` is larger than {limit} bytes")]
    TooLarge {
        /// The URL, redacted.
        url: String,
        /// The bound, in bytes.
        limit: u64,
    },
    /// The content is not what it should be.
    #[error("`{url}` has the wrong content: expected {expected}, found {found}")]
    Mismatch {
        /// The URL, redacted.
        url: String,
        /// What was expected.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The download cannot be written.
    #[error("cannot write a download")]
    Io(#[from] std::io::Error),
    /// The client cannot be made.
    #[error("cannot set up TLS")]
    Setup {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HttpError {
    /// The status the server answered with, if it answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn transport(url: &Url, source: reqwest::Error) -> Self {
        Self::Transport {
            url: redacted(url),
            source: source.without_url(),
        }
    }
}

/// `url` without user, password, query and fragment.
pub(crate) fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    // A URL that cannot have a user has none to remove.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

impl From<HttpError> for BuildError {
    fn from(error: HttpError) -> Self {
        let (kind, hint) = match &error {
            HttpError::Transport { .. } => (
                ErrorKind::Unavailable,
                Some("check the network, the proxy settings and the address"),
            ),
            HttpError::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => (
                ErrorKind::Unavailable,
                Some("check the credentials for this server"),
            ),
            HttpError::Status { .. } => (ErrorKind::Unavailable, None),
            HttpError::Setup { .. } => (
                ErrorKind::Unavailable,
                Some("check the certificates named by SSL_CERT_FILE"),
            ),
            HttpError::TooLarge { .. } | HttpError::Mismatch { .. } | HttpError::Io(_) => {
                (ErrorKind::Failed, None)
            }
        };
        let error = BuildError::new(kind, error.to_string()).caused_by_source_of(&error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
