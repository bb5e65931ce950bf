//! `cargo xtask`: what the project does to itself.

mod bench;
mod ci;
mod command;
mod docs;
mod error;
mod links;
mod machine;
mod report;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What the project does to itself.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Set up what the tests need, and run them all
    Test(test::Arguments),
    /// Everything a change has to pass: format, lints, docs, dependencies, tests
    Ci,
    /// Time the build of `examples/hello`, beside what uv needs for the same packages
    Bench(bench::Arguments),
    /// Build the book and check the links of every page
    Docs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = workspace::Workspace::find().and_then(|workspace| match &arguments.task {
        Task::Test(arguments) => test::run(&workspace, arguments),
        Task::Ci => ci::run(&workspace),
        Task::Bench(arguments) => bench::run(&workspace, arguments),
        Task::Docs => docs::run(&workspace),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}
