//! The `kaniko` builder: a Job in a Kubernetes cluster.

mod backend;
mod build;
mod cluster;
mod context;
mod follow;
mod job;
mod life;
mod logs;
mod merge;
mod options;
mod prepare;
mod printed;
mod prune;
mod rights;
mod said;
mod send;
mod state;
mod tools;

pub use backend::{ENTRY, Kaniko};
pub use build::no_registry;
pub use printed::manifests;
pub use prune::prune;
