//! The `kaniko` builder: a Job in a Kubernetes cluster.

mod answers;
mod assignment;
mod backend;
mod build;
mod buildkit;
mod cluster;
mod command;
mod context;
mod follow;
mod inside;
mod job;
mod life;
mod logs;
mod lowered;
mod memory;
mod merge;
mod options;
mod output;
mod prepare;
mod printed;
mod program;
mod prune;
mod rights;
mod said;
mod send;
mod solved;
mod state;
mod stored;
mod tools;

pub use backend::{ENTRY, Kaniko};
pub use build::no_registry;
pub use inside::{Inside, bring, execute};
pub use printed::manifests;
pub use prune::prune;
pub use stored::fetch;
