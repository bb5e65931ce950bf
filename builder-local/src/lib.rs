//! The `default` builder: a container engine of this machine, driven over its API.

mod backend;
mod buildkit;
mod caches;
mod deliver;
mod lower;
mod make;
mod options;
mod podman;
mod told;
mod tree;
mod written;

pub use backend::{ENTRY, Local};
pub use written::{Base, dockerfile, write};
