//! What can go wrong with images on this machine.

use std::io;
use std::path::PathBuf;

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::platform::Platform;

/// Why an image cannot be read, written or kept.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file cannot be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A blob is referred to but not there.
    #[error("blob is missing from the local store: `{0}`")]
    MissingBlob(Digest),
    /// A document is not what it should be.
    #[error("not a valid {kind}: `{digest}`")]
    Malformed {
        /// `image manifest`, `image configuration`, …
        kind: &'static str,
        /// The document.
        digest: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// A document contradicts itself.
    #[error("not a valid image, {reason}: `{digest}`")]
    Inconsistent {
        /// The manifest.
        digest: Digest,
        /// The contradiction.
        reason: &'static str,
    },
    /// A document is of a type that is no image.
    #[error("unsupported media type: `{0}`")]
    MediaType(String),
    /// A document is larger than any honest one.
    #[error("a manifest or configuration of more than {limit} bytes: `{digest}`")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// The bound, in bytes.
        limit: u64,
    },
    /// The image exists, but not for the platform.
    #[error("no image for `{wanted}`, only for {available}")]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is, each in backticks.
        available: String,
    },
    /// Something else stands where a layout should be written.
    #[error("not an OCI image layout, and not empty: `{}`", .0.display())]
    NotALayout(PathBuf),
    /// A path that cannot be written to, because it has no parent or no name.
    #[error("not a path for a file or folder: `{}`", .0.display())]
    Path(PathBuf),
}

impl From<OciError> for BuildError {
    fn from(error: OciError) -> Self {
        let built = match &error {
            OciError::NotALayout(_) => Self::input(error.to_string())
                .hint("choose a folder that does not exist, is empty, or holds an OCI image layout"),
            OciError::NoPlatform { .. } | OciError::Path(_) | OciError::MediaType(_) => {
                Self::input(error.to_string())
            }
            OciError::MissingBlob(_) => Self::failed(error.to_string())
                .hint("build the image again with `--force`; its blobs were removed"),
            _ => Self::failed(error.to_string()),
        };
        match std::error::Error::source(&error) {
            Some(source) => built.caused_by(source),
            None => built,
        }
    }
}
