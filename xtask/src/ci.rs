//! `cargo xtask ci`.

use std::time::Instant;

use crate::command::Program;
use crate::error::Error;
use crate::workspace::Workspace;
use crate::{docs, report, test, tools};

/// Where advisories on dependencies are published.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";

type Check = fn(&Workspace) -> Result<(), Error>;

const CHECKS: [(&str, Check); 7] = [
    ("format", format),
    ("clippy", clippy),
    ("doc", doc),
    ("links", docs::links),
    ("deny", deny),
    ("typos", typos),
    ("test", |workspace| {
        // Judges the change, not the luck: `cargo xtask test` and `soak` look for what nobody knows yet.
        test::run(workspace, &test::Arguments::seeded(1))
    }),
];

/// Runs every check, and says at the end which failed and how long each took.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    let mut rows = Vec::new();
    for (title, check) in CHECKS {
        report::heading(title);
        let [target, temporary] = workspace.free();
        report::note(&format!(
            "free: {target:.1} GB for what is compiled, {temporary:.1} GB for what tests make"
        ));
        let start = Instant::now();
        let result = check(workspace);
        if let Err(error) = &result {
            report::error(error);
        }
        rows.push((title, start.elapsed(), result.is_ok()));
    }
    report::durations(&rows);
    let failed: Vec<_> = rows
        .iter()
        .filter(|(_, _, passed)| !passed)
        .map(|(title, _, _)| *title)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Checks(failed))
}

fn format(workspace: &Workspace) -> Result<(), Error> {
    workspace.cargo("fmt").args(["--all", "--check"]).run()
}

fn clippy(workspace: &Workspace) -> Result<(), Error> {
    workspace
        .cargo("clippy")
        .args(["--locked", "--quiet", "--workspace", "--all-targets", "--"])
        .args(["-D", "warnings"])
        .run()
}

fn doc(workspace: &Workspace) -> Result<(), Error> {
    workspace
        .cargo("doc")
        .args(["--locked", "--quiet", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

fn deny(workspace: &Workspace) -> Result<(), Error> {
    let reachable = Program::new("git")
        .args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=10"])
        .args(["ls-remote", "--exit-code", ADVISORIES, "HEAD"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .succeeds();
    let mut checks = vec!["bans", "licenses", "sources"];
    if reachable {
        checks.push("advisories");
    } else {
        report::note("advisories are not checked: their database cannot be reached");
    }
    tools::CARGO_DENY
        .find(workspace)?
        .folder(&workspace.root)
        .args(["--locked", "check"])
        .args(checks)
        .run()
}

fn typos(workspace: &Workspace) -> Result<(), Error> {
    tools::typos(workspace)?.folder(&workspace.root).run()
}
