//! What went wrong, in a form that crosses process boundaries: a kind, a message, hints, and the causes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What sort of failure it is, which decides the command's exit code and whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// What a person wrote is wrong: a spec, a flag, a file it names. Exit code 2.
    Input,
    /// The build itself failed. Exit code 1.
    Failed,
    /// A builder or a service cannot be reached, or refuses. Exit code 3.
    Unavailable,
    /// Nobody can tell whether the image exists. Exit code 4.
    Unknown,
    /// The person or the system asked to stop. Exit code 130.
    Interrupted,
}

impl ErrorKind {
    /// The exit code of a command that ends with this kind of error.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Input => 2,
            Self::Unavailable => 3,
            Self::Unknown => 4,
            Self::Interrupted => 130,
        }
    }
}

/// An error as it leaves a builder, or any room of the project: what happened, why, and what to do next.
///
/// Messages are lower-case fragments without a full stop, with literals in backticks and the value last.
/// A message never repeats its source; hints are separate sentences of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildError {
    /// What sort of failure it is.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// The field of the spec that caused it, by the name it has in `imagespec.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do next, each a line of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// What caused it, if that was another error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<Cause>>,
}

/// One link of a chain of causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What happened at this link.
    pub message: String,
    /// What caused it in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<Cause>>,
}

impl BuildError {
    /// An error of a kind with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: None,
            hints: Vec::new(),
            source: None,
        }
    }

    /// [`ErrorKind::Input`] with a message.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// [`ErrorKind::Failed`] with a message.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// [`ErrorKind::Unavailable`] with a message.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Unknown`] with a message.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, message)
    }

    /// The error of a build that was asked to stop.
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// Names the field of the spec that caused it.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The field of the spec that caused it, where its message does not name it.
    pub fn unnamed_field(&self) -> Option<&str> {
        let field = self.field.as_deref()?;
        (!self.message.contains(&format!("`{field}`"))).then_some(field)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Keeps `error` and all its sources as the cause. Where one of them is a full disk, the error is
    /// [`ErrorKind::Failed`] whatever it was, and says what helps.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.source = Some(Box::new(Cause::of(error)));
        if is_full_disk(error) {
            self.kind = ErrorKind::Failed;
            self = self.hint(FULL_DISK);
        }
        self
    }

    /// The error of a folder or a file that a person names and that cannot be written. What is there already is that
    /// person's to name otherwise.
    pub fn unwritten(message: impl Into<String>, field: &str, error: &std::io::Error) -> Self {
        let failed = Self::failed(message).field(field).caused_by(error);
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            return failed;
        }
        Self {
            kind: ErrorKind::Input,
            ..failed
        }
        .hint("name a folder that does not exist yet")
    }

    /// As [`BuildError::caused_by`], for an error whose own message is already this one's.
    #[must_use]
    pub fn caused_by_source_of(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.source = None;
        match error.source() {
            Some(source) => self.caused_by(source),
            None => self,
        }
    }

    /// Makes this error the cause of a broader one of the same kind; hints and field move outward.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let Self {
            kind,
            message: inner,
            field,
            hints,
            source,
        } = self;
        let source = Some(Box::new(Cause {
            message: inner,
            source,
        }));
        Self {
            kind,
            message: message.into(),
            field,
            hints,
            source,
        }
    }
}

impl BuildError {
    /// Takes a [`BuildError::context`] back: what it was put around.
    #[must_use]
    pub fn without_context(self) -> Self {
        match self.source {
            Some(cause) => Self {
                message: cause.message,
                source: cause.source,
                ..self
            },
            None => self,
        }
    }
}

/// What helps where a disk is full.
const FULL_DISK: &str = "free some space on that disk; of the caches: `imagespec cache prune`";

/// Whether an error or one of its sources is that of a full disk. An I/O error that wraps another has none of
/// its own kind in the chain, but answers for it.
fn is_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |error: &std::io::Error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        )
    };
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref())
        .any(full)
}

impl Cause {
    /// The cause that `error` and its sources describe.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            message: error.to_string(),
            source: error.source().map(|source| Box::new(Self::of(source))),
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}
