//! From arguments to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind as ClapKind;

use crate::args::Cli;
use crate::{command, fail, host};

/// Runs the command with the process's arguments.
///
/// Must be the first thing a program does: it is also how the program becomes the first process of a sandbox,
/// which has to happen before any thread is started.
pub fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == host::SANDBOX_INIT)
    {
        return imagespec_sandbox::init();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed standard output.
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ClapKind::DisplayHelp | ClapKind::DisplayVersion
            );
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    let done = command::run(cli);
    imagespec_sandbox::settle();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            fail::print(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}
