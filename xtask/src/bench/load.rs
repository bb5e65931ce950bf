//! A build service under load, measured by clients that only the tests have.

use std::env;

use crate::error::Error;
use crate::report;
use crate::tools;
use crate::workspace::Workspace;

/// Starts a real service with a real registry, asks it as many clients do, and prints the figures.
pub(super) fn run(workspace: &Workspace, profile: &[&str]) -> Result<(), Error> {
    report::heading("a build service under load");
    let uv = tools::uv(workspace)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = uv.parent().map(ToOwned::to_owned).into_iter();
    let path = env::join_paths(folders.chain(env::split_paths(&path))).unwrap_or(path);
    let said = workspace
        .cargo("test")
        .args(["--locked", "--quiet", "--package", "imagespec-cli"])
        .args(profile)
        .args(["--test", "delivering", "--", "service::load"])
        .args(["--ignored", "--nocapture", "--test-threads", "1"])
        .env("PATH", path)
        // What is missing is an error: nothing would be measured.
        .env("CI", "1")
        .stdout()?;
    // Each is a line of its own, after what says how the test goes.
    let figures = said.lines().filter(|line| line.contains(": "));
    for line in figures.filter(|line| !line.starts_with("test result")) {
        report::note(line.trim_start_matches('.'));
    }
    Ok(())
}
