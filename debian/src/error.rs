//! What can go wrong between the archive and a layer.

use std::io;
use std::path::PathBuf;

use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_http::HttpError;
use imagespec_oci::layer::LayerError;

use crate::release::Problem;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// No source of the machine offers the suite, signed by a key that is trusted for it.
    #[error("no apt source of this machine has the Debian suite `{suite}`")]
    NoSource {
        /// The suite's code name.
        suite: String,
        /// What was wrong with the last source that was asked.
        source: Option<Box<DebianError>>,
    },
    /// An apt source file, or an option that stands in for one, cannot be used.
    #[error("`{path}` is not usable: {problem}")]
    Sources {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A keyring cannot be read.
    #[error("cannot read the keyring `{path}`")]
    Keyring {
        /// The file, or `Signed-By` for an inline key.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A Release file is not signed by a trusted key, or not what was asked for.
    #[error("the release file is refused: `{url}`")]
    Release {
        /// Where it came from.
        url: String,
        /// What names that address.
        origin: String,
        /// What is wrong with it.
        #[source]
        problem: Problem,
    },
    /// A part of a suite that the machine's sources have is not where they say.
    #[error("the archive does not have what the apt sources of this machine name: `{suite}`")]
    NoPocket {
        /// The part: `bookworm-security`.
        suite: String,
        /// The file that names it, or names it of another suite.
        origin: String,
    },
    /// No source can have the package.
    #[error("no apt source of this machine has the package file: `{path}`")]
    NoFile {
        /// Its path below the archive's root.
        path: String,
    },
    /// The suite has no packages for the architecture.
    #[error("the suite `{suite}` has no packages for the architecture `{architecture}`")]
    Architecture {
        /// The suite's code name.
        suite: String,
        /// The architecture, as Debian names it.
        architecture: String,
    },
    /// A package that was asked for does not exist.
    #[error("unknown package in the Debian suite `{suite}`: `{name}`")]
    UnknownPackage {
        /// As it was written.
        name: String,
        /// The suite's code name.
        suite: String,
        /// Names like it.
        similar: Vec<String>,
    },
    /// A dependency cannot be satisfied.
    #[error("`{package}` needs what the Debian suite does not have: {relation}")]
    Unsatisfied {
        /// The package with the dependency.
        package: String,
        /// The dependency.
        relation: String,
    },
    /// Two packages exclude each other.
    #[error("`{package}` cannot be installed beside `{other}`")]
    Conflict {
        /// The package that says so.
        package: String,
        /// The package it excludes.
        other: String,
    },
    /// A package file is damaged or hostile.
    #[error("the package file `{path}` is refused: {problem}")]
    Package {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The base cannot be configured from these packages.
    #[error("the packages do not make a base system: {0}")]
    Base(String),
    /// The network.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A file.
    #[error("cannot read or write a file")]
    Io(#[from] io::Error),
    /// The build was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl DebianError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSource { .. }
            | Self::NoPocket { .. }
            | Self::Release { .. }
            | Self::Sources { .. }
            | Self::Keyring { .. }
            | Self::Architecture { .. }
            | Self::UnknownPackage { .. }
            | Self::Unsatisfied { .. }
            | Self::Conflict { .. } => ErrorKind::Input,
            Self::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        }
    }
}

impl From<DebianError> for BuildError {
    fn from(error: DebianError) -> Self {
        let mut built = match error {
            DebianError::Http(error) => return error.into(),
            DebianError::Layer(error) => return error.into(),
            ref error => Self::new(error.kind(), error.to_string()),
        };
        if let Some(source) = std::error::Error::source(&error) {
            built = built.caused_by(source);
        }
        match &error {
            DebianError::NoSource { .. } => built
                .hint("set the builder option `debian_mirror` to the address of a mirror")
                .hint("set the builder option `debian_keyring` to the path of the keyring that signs it"),
            DebianError::Release {
                origin, problem, ..
            } => release_hints(built, origin, problem),
            DebianError::NoPocket { suite, origin } => built
                .hint(format!("name a mirror that has it in `{origin}`, or with the builder option `debian_mirror`"))
                .hint(format!("if `{suite}` does not exist, take its like out of `{origin}`")),
            DebianError::UnknownPackage { similar, .. } => {
                let built = built.field("apt_packages");
                match similar.first() {
                    Some(name) => built.hint(format!("did you mean `{name}`?")),
                    None => built,
                }
            }
            DebianError::Unsatisfied { .. } | DebianError::Conflict { .. } => {
                built.field("apt_packages")
            }
            _ => built,
        }
    }
}

/// What to do about a release that is refused.
fn release_hints(built: BuildError, origin: &str, problem: &Problem) -> BuildError {
    let other =
        format!("name another mirror in `{origin}`, or with the builder option `debian_mirror`");
    match problem {
        Problem::Unsigned => built.hint("an archive has to sign its `Release`").hint(other),
        Problem::Untrusted { .. } => built
            .hint(format!(
                "name the keyring of the archive with `Signed-By` in `{origin}`, or with the builder option `debian_keyring`"
            ))
            .hint("on Debian the package `debian-archive-keyring` has the keys"),
        Problem::Expired(_) => built
            .hint("check the clock of this machine: `date`")
            .hint("if it is right, the mirror is out of date")
            .hint(other)
            .hint(format!(
                "an archive that does not change any more: `Check-Valid-Until: no` in `{origin}`"
            )),
        Problem::Future(_) => built.hint("check the clock of this machine: `date`"),
        _ => built.hint(other),
    }
}
