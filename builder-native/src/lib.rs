//! The `native` builder: daemonless, rootless, embedded. It writes packages as layers without running anything,
//! and runs only what has to be run.

mod accounts;
mod assemble;
mod backend;
mod base;
mod built;
mod bytecode;
mod conda;
mod deliver;
mod doctor;
mod early;
mod exec;
mod form;
mod inspect;
mod layers;
mod lazy;
mod libc;
mod limits;
mod lists;
mod machine;
mod make;
mod packages;
mod process;
mod provenance;
mod python;
mod recipe;
mod reference;
mod run;
mod sources;
mod triggers;
mod workshop;

pub use backend::{ENTRY, Native};
pub use doctor::{Finding, State, examine};
pub use exec::{Execution, Lent, execute};
