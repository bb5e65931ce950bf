//! Registries, by the OCI distribution specification 1.1.

mod auth;
mod blobs;
mod challenge;
mod client;
mod error;
mod existing;
mod manifests;
mod meter;
mod mounts;
mod pull;
mod push;
mod session;
mod upload;

pub use client::{Registry, Tuning};
pub use error::RegistryError;
pub use existing::Existing;
pub use mounts::Mounts;
pub use pull::Pull;
pub use push::{BlobSource, Push, Pushed, Stored};
pub use upload::BlobPush;
