//! The `default` builder: a container engine of this machine, driven over its API.

mod backend;
mod buildkit;
mod caches;
mod deliver;
mod make;
mod options;
mod podman;
mod several;

pub use backend::{ENTRY, Local};
