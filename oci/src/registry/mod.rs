//! Registries, by the OCI distribution specification 1.1.

mod auth;
mod blobs;
mod challenge;
mod client;
mod error;
mod manifests;
mod pull;
mod push;

pub use client::Registry;
pub use error::RegistryError;
pub use pull::Pull;
pub use push::{Push, Pushed};
