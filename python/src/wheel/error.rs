//! What can be wrong with a wheel.

use std::io;

use imagespec_core::error::BuildError;
use imagespec_oci::layer::LayerError;

/// Why a wheel is refused.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// It is no zip archive, or one that nobody should open.
    #[error("the wheel is not a sound zip archive: {0}")]
    Zip(String),
    /// It is a zip archive, but no wheel.
    #[error("the archive is not a sound wheel: {0}")]
    Format(String),
    /// It cannot become part of a layer.
    #[error("the wheel cannot be written to a layer")]
    Layer(#[from] LayerError),
    /// It cannot be read.
    #[error("the wheel cannot be read")]
    Io(#[from] io::Error),
}

impl WheelError {
    pub(super) fn zip(problem: impl Into<String>) -> Self {
        Self::Zip(problem.into())
    }

    pub(super) fn format(problem: impl Into<String>) -> Self {
        Self::Format(problem.into())
    }
}

impl From<WheelError> for BuildError {
    fn from(error: WheelError) -> Self {
        Self::failed(error.to_string()).caused_by_source_of(&error)
    }
}
