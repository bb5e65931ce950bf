//! Debian for imagespec: a verified archive, package closures, layers, and a base image without an image.

pub mod archive;
pub mod closure;
pub mod deb822;
pub mod depends;
pub mod error;
pub mod index;
pub mod keyring;
pub mod package;
pub mod release;
pub mod sources;
pub mod version;

pub use archive::{Archive, ArchiveOptions, Suite};
pub use closure::Installed;
pub use error::DebianError;
pub use package::{Package, Pocket};
