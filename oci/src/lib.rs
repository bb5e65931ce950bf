//! OCI images: everything of `imagespec` that touches an OCI byte, and nothing of Python or Debian.

pub mod archive;
pub mod cache;
pub mod credentials;
pub mod delivery;
pub mod engine;
pub mod image;
pub mod images;
pub mod layer;
pub mod layout;
mod leftovers;
pub mod lock;
mod manifest;
pub mod reference;
pub mod registry;
pub mod saved;
pub mod store;
pub mod tree;
mod unused;

pub use delivery::Delivery;
pub use engine::Engine;
pub use lock::BuildLock;
pub use reference::{Reference, ReferenceError};
pub use registry::{Registry, RegistryError};
