//! What can go wrong with a sandbox.

use std::io;
use std::path::PathBuf;

use imagespec_core::error::BuildError;
use imagespec_oci::layer::ReadError;

use crate::job::Limit;

/// This machine cannot run a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot run a sandbox here: {reason}")]
pub struct Unsupported {
    /// Why, a lower-case fragment.
    pub reason: String,
    /// What to do about it, a sentence.
    pub hint: Option<String>,
}

/// Why a sandbox failed. A command that ran and failed is no error; see [`Exit`](crate::Exit).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine cannot run a sandbox at all.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A step of making the sandbox failed.
    #[error("cannot set up the sandbox: {step}")]
    Setup {
        /// The step, a lower-case fragment.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The helper could not be started.
    #[error("cannot start the sandbox's first process: `{program}`")]
    Start {
        /// The helper's program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The sandbox was killed from outside, or its first process broke off.
    #[error("the sandbox ended without a word")]
    Lost,
    /// The command used more than it may; every process of the sandbox is gone.
    #[error("the command used more than it may: {limit}")]
    Limit {
        /// What it used.
        limit: Limit,
    },
    /// The caller asked to stop; every process of the sandbox is gone.
    #[error("interrupted")]
    Cancelled,
    /// A layer is not what a layer may be.
    #[error("{reason}: `{entry}`")]
    Layer {
        /// What is wrong, a lower-case fragment.
        reason: &'static str,
        /// The entry's path, or what stands in for it.
        entry: String,
    },
    /// A layer's bytes are not those of its diff id.
    #[error("the layer's content is not `{expected}`: `{found}`")]
    Digest {
        /// The diff id asked for.
        expected: String,
        /// The digest of what was read.
        found: String,
    },
    /// Writing the changes as a layer failed.
    #[error("cannot write the changes as a layer")]
    Write {
        /// The writer's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// A failure of a step of the set-up.
    pub(crate) fn setup(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Setup {
            step: step.into(),
            source: source.into(),
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::Seconds => "time",
            Self::Output => "output",
            Self::Disk => "disk space",
            Self::Full => "what is left of the disk",
        })
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Refused { reason, entry } => Self::Layer { reason, entry },
            ReadError::Io(error) => Self::Io(error),
        }
    }
}

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Unsupported(unsupported) => {
                let built = Self::unavailable(error.to_string());
                match &unsupported.hint {
                    Some(hint) => built.hint(hint),
                    None => built,
                }
            }
            Error::Cancelled => Self::interrupted(),
            Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
                Self::failed("no space left for the sandbox").caused_by(&error)
            }
            _ => {
                let built = Self::failed(error.to_string());
                match std::error::Error::source(&error) {
                    Some(source) => built.caused_by(source),
                    None => built,
                }
            }
        }
    }
}
