//! Why a task failed.

use std::io;
use std::path::PathBuf;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program could not be started.
    #[error("cannot run `{program}`")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    /// A program ended badly.
    #[error("failed: `{command}`")]
    Failed { command: String },
    /// The workspace has no metadata.
    #[error("cannot read the workspace")]
    Metadata(#[source] cargo_metadata::Error),
    /// A file cannot be read or written; the source names it.
    #[error("cannot use a file")]
    File(#[from] io::Error),
    /// Some of several checks failed.
    #[error("failed: {}", .0.join(", "))]
    Checks(Vec<&'static str>),
    /// Links that lead nowhere, one a line.
    #[error("links that lead nowhere:\n{}", .0.join("\n"))]
    Links(Vec<String>),
    /// A program is needed that this machine has not.
    #[error("this needs a program that is not installed: `{program}`")]
    Missing { program: &'static str },
    /// A program that was installed is not where it should be.
    #[error("not where it was installed: `{}`", .0.display())]
    NotInstalled(PathBuf),
}
