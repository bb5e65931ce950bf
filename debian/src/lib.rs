//! Debian for imagespec: a verified archive, package closures, layers, and a base image without an image.

pub mod archive;
pub mod base;
pub mod closure;
pub mod deb;
pub mod deb822;
pub mod depends;
pub mod error;
pub mod index;
pub mod keyring;
pub mod layers;
pub mod lists;
mod merged;
pub mod package;
pub mod release;
mod releases;
pub mod scripts;
pub mod settings;
pub mod source;
pub mod sources;
pub mod state;
pub mod version;

pub use archive::{Archive, ArchiveOptions, Suite};
pub use closure::Installed;
pub use error::DebianError;
pub use layers::LayerPlan;
pub use lists::Lists;
pub use package::{Package, Pocket};
