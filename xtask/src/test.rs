//! `cargo xtask test`.

use std::env;

use crate::error::Error;
use crate::workspace::Workspace;
use crate::{machine, report, tools};

/// What to test.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Sets up what the tests need, and runs them all. Tests that need an unprivileged user run themselves once
/// more as one, where this is root.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Error> {
    report::heading("what the tests need");
    machine::set_up()?;
    let uv = tools::uv(workspace)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = uv
        .parent()
        .map(ToOwned::to_owned)
        .into_iter()
        .chain(env::split_paths(&path));
    let path = env::join_paths(folders).unwrap_or_default();
    let mut failed = Vec::new();
    for (title, kind) in [("tests", "--all-targets"), ("examples in docs", "--doc")] {
        report::heading(title);
        let cargo = workspace
            .cargo("test")
            .args(["--locked", "--workspace", "--no-fail-fast", kind])
            .env("PATH", &path)
            .args(&arguments.filter);
        if cargo.run().is_err() {
            failed.push(title);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Checks(failed))
}
