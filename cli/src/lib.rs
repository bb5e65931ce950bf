//! The `imagespec` command, as a library: a binary that links a builder of its own is
//! `use acme_builder as _; fn main() -> std::process::ExitCode { imagespec_cli::main() }`.

mod args;
mod builders;
mod command;
mod entry;
mod env;
mod fail;
mod host;
mod interrupt;
mod load;
mod report;

pub use entry::main;
