//! What can go wrong between a channel and a layer.

use std::io;

use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_http::HttpError;
use imagespec_oci::layer::{LayerError, ReadError};
use rattler_conda_types::ParseMatchSpecError;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum CondaError {
    /// A configuration file of Conda cannot be used.
    #[error("`{file}` is not usable: {problem}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A channel cannot be used.
    #[error("the Conda channel `{channel}` {problem}")]
    Channel {
        /// As it was written.
        channel: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Packages are not made for the platform.
    #[error("Conda packages are not made for the platform `{0}`")]
    Platform(String),
    /// What names a package cannot be understood.
    #[error(
        "expected a Conda package, as in `numpy`, `numpy=2.1` or `conda-forge::numpy>=2`: `{spec}`"
    )]
    Spec {
        /// As it was written.
        spec: String,
        /// Why.
        source: Box<ParseMatchSpecError>,
    },
    /// A kind of package name that is not supported.
    #[error("a Conda package {problem}: `{spec}`")]
    Unsupported {
        /// As it was written.
        spec: String,
        /// What it may not be.
        problem: &'static str,
    },
    /// No channel has a package of the name.
    #[error("no Conda channel has the package `{name}`")]
    Unknown {
        /// Its name.
        name: String,
        /// A name like it.
        similar: Option<String>,
    },
    /// No set of packages is what was asked for.
    #[error("no set of Conda packages is what was asked for")]
    Unsolvable(#[source] io::Error),
    /// The packages of the base would have to change.
    #[error(
        "the Conda packages need others than those of the image that this one starts from: {0}"
    )]
    Changes(String),
    /// The list of a channel's packages cannot be used.
    #[error("the list of packages of a Conda channel is refused: `{url}`")]
    Index {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A package is damaged or hostile.
    #[error("the Conda package `{file}` is refused: {problem}")]
    Package {
        /// Its file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The network, where a URL has a secret: what failed, without it.
    #[error("{0}")]
    Fetch(String),
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

impl CondaError {
    /// A package that is not what it should be.
    pub(crate) fn package(file: &str, problem: impl std::fmt::Display) -> Self {
        Self::Package {
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// A package whose archive cannot be read.
    pub(crate) fn unreadable(file: &str, error: &ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::package(file, format!("it cannot be read, {error}")),
            refused @ ReadError::Refused { .. } => Self::package(file, refused),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. }
            | Self::Channel { .. }
            | Self::Platform(_)
            | Self::Spec { .. }
            | Self::Unsupported { .. }
            | Self::Unknown { .. }
            | Self::Changes(_)
            | Self::Unsolvable(_) => ErrorKind::Input,
            Self::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        }
    }
}

impl From<CondaError> for BuildError {
    fn from(error: CondaError) -> Self {
        let field = match &error {
            CondaError::Config { .. } | CondaError::Channel { .. } | CondaError::Index { .. } => {
                "conda_channels"
            }
            CondaError::Platform(_) => "platform",
            _ => "conda_packages",
        };
        let built = match error {
            CondaError::Http(error) => {
                let answered = error.status().is_some();
                let built = Self::from(error).field(field);
                if answered {
                    return built;
                }
                return built.hint(
                    "where Conda's channels have a mirror, `channel_alias` of `.condarc` or `CONDA_CHANNEL_ALIAS` names it",
                );
            }
            CondaError::Layer(error) => return Self::from(error).field(field),
            ref error => Self::new(error.kind(), error.to_string()),
        };
        let built = built.field(field).caused_by_source_of(&error);
        match &error {
            CondaError::Channel { .. } => built.hint(
                "name a channel by its name, its URL or the path of its folder; `channel_alias` and `custom_channels` of \
                 `.condarc` say where names lead",
            ),
            CondaError::Unsolvable(_) => built.hint(
                "leave versions open, or name a further channel in `conda_channels`",
            ),
            CondaError::Unknown { similar: Some(similar), .. } => {
                built.hint(format!("did you mean `{similar}`?"))
            }
            CondaError::Unknown { .. } => {
                built.hint("name the channel that has it in `conda_channels`")
            }
            CondaError::Changes(_) => built.hint("name the packages of both in one ImageSpec"),
            _ => built,
        }
    }
}
