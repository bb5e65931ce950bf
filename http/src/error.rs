//! What can go wrong between here and a server.

use std::time::Duration;

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
    /// The answer, or its body, takes longer than anybody waits.
    #[error("`{url}` answers too slowly, less than 64 KiB in {patience:?}")]
    TooSlow {
        /// The URL, redacted.
        url: String,
        /// How long was waited for it.
        patience: Duration,
    },
    /// The answer ends before its time.
    #[error("`{url}` ends after {found} of {expected} bytes")]
    Truncated {
        /// The URL, redacted.
        url: String,
        /// How many bytes there should be.
        expected: u64,
        /// How many came.
        found: u64,
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

/// What TLS may have against a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Its certificate is signed by nobody who is trusted, is for another name, or out of date.
    Untrusted,
    /// It does not speak TLS.
    Absent,
}

impl HttpError {
    pub(crate) fn setup(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self::Setup { source }
    }

    /// The status the server answered with, if it answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Transport { source, .. } => {
                !source.is_builder() && !source.is_redirect() && self.tls().is_none()
            }
            Self::TooSlow { .. } | Self::Truncated { .. } => true,
            _ => false,
        }
    }

    /// What TLS has against the server, where that is why it cannot be reached.
    pub fn tls(&self) -> Option<Tls> {
        let mut cause: &(dyn std::error::Error + 'static) = match self {
            Self::Transport { source, .. } => source,
            _ => return None,
        };
        loop {
            match cause.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidCertificate(_)) => return Some(Tls::Untrusted),
                Some(rustls::Error::InvalidMessage(_)) => return Some(Tls::Absent),
                _ => {}
            }
            // An I/O error's source is that of what it wraps, not what it wraps.
            let wrapped = cause.downcast_ref::<std::io::Error>();
            cause = match wrapped.and_then(std::io::Error::get_ref) {
                Some(inner) => inner,
                None => cause.source()?,
            };
        }
    }

    /// The request or its answer took longer than `patience`.
    pub fn too_slow(url: &Url, patience: Duration) -> Self {
        Self::TooSlow {
            url: redacted(url),
            patience,
        }
    }

    /// A request that got no answer.
    pub fn of(source: reqwest::Error) -> Self {
        let url = source.url().map(redacted).unwrap_or_default();
        Self::Transport {
            url,
            source: source.without_url(),
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
pub fn redacted(url: &Url) -> String {
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
            HttpError::Transport { .. } if error.tls() == Some(Tls::Untrusted) => (
                ErrorKind::Unavailable,
                Some("trust the authority that signed its certificate: name it in SSL_CERT_FILE"),
            ),
            HttpError::Transport { .. }
            | HttpError::TooSlow { .. }
            | HttpError::Truncated { .. } => (
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
