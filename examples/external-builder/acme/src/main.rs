//! A builder as a program of its own, over one of ours: `acme` is `native`, with the label of who pays.

mod backend;

use std::path::PathBuf;
use std::process::ExitCode;

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::protocol::Answer;
use imagespec_core::serve::{answer, serve_on};

/// The first argument with which this program becomes the first process of a sandbox.
const SANDBOX_INIT: &str = "sandbox-init";

fn main() -> ExitCode {
    // Before any thread is started: `native` runs commands in sandboxes.
    if std::env::args().nth(1).as_deref() == Some(SANDBOX_INIT) {
        return imagespec_sandbox::init();
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            let error = BuildError::failed("cannot find this program's own file").caused_by(&error);
            drop(answer(&Answer::Error { error }));
            return ExitCode::FAILURE;
        }
    };
    let host = Host {
        home: std::env::home_dir(),
        variables: std::env::vars().collect(),
        sandbox_init: vec![program, PathBuf::from(SANDBOX_INIT)],
        ..Host::default()
    };
    let code = serve_on(&backend::ENTRY, host);
    // What a sandbox has left to be removed is removed before we end.
    imagespec_sandbox::settle();
    code
}
