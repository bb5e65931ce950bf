//! What can be wrong with the entries of a layer.

use std::io;

use imagespec_core::error::BuildError;

/// Why a layer cannot be written. What was written of it must not be used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The entry's path is absolute, empty, or leaves the layer.
    #[error("a layer cannot hold the path `{0}`")]
    Path(String),
    /// The layer has another entry of this path.
    #[error("a layer cannot hold two entries of one path: `{0}`")]
    Duplicate(String),
    /// A file is longer or shorter than it said, or its content is damaged.
    #[error("`{path}` {problem}")]
    Content {
        /// The entry.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Reading an entry or writing the layer failed.
    #[error("cannot write a layer")]
    Io(#[from] io::Error),
}

impl From<LayerError> for BuildError {
    fn from(error: LayerError) -> Self {
        Self::failed(error.to_string()).caused_by_source_of(&error)
    }
}
