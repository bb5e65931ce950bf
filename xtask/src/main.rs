//! `cargo xtask`: what the project does to itself.

mod bench;
mod ci;
mod command;
mod docs;
mod error;
mod links;
mod machine;
mod report;
mod soak;
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
    /// Time builds, beside what others need for the same packages
    Bench(bench::Arguments),
    /// Kill builds, damage input and build large images, for long
    Soak(soak::Arguments),
    /// Write the reference, build the book and check the links of every page
    Docs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = workspace::Workspace::find().and_then(|workspace| match &arguments.task {
        Task::Test(arguments) => test::run(&workspace, arguments),
        Task::Ci => ci::run(&workspace),
        Task::Bench(arguments) => bench::run(&workspace, arguments),
        Task::Soak(arguments) => soak::run(&workspace, arguments),
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
