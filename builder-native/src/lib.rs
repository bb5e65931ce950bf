//! The `native` builder: daemonless, rootless, embedded. It writes packages as layers without running anything,
//! and runs only what has to be run.

mod assemble;
mod backend;
mod base;
mod bytecode;
mod deliver;
mod exec;
mod layers;
mod machine;
mod packages;
mod provenance;
mod python;
mod run;
mod sources;

pub use backend::{ENTRY, Native};
pub use exec::{Execution, execute};
