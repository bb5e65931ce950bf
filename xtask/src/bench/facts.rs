//! Where and with what a run measures.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::Program;
use crate::error::Error;
use crate::report;
use crate::workspace::Workspace;

/// From how many waiting processes on, on average, a machine is too busy to measure on.
const BUSY: f64 = 0.5;
/// How long a machine may take to calm down.
const PATIENCE: Duration = Duration::from_mins(4);

/// The date, the machine, the command and the versions of programs. A machine that is busy is told of: its figures
/// are too slow, and not for all alike.
pub(super) fn gather(workspace: &Workspace, programs: &[&Path]) -> Result<Value, Error> {
    let load = settled()?;
    if load > BUSY {
        report::note(&format!(
            "the machine is busy (load {load}): wait until it is not, or believe no figure"
        ));
    }
    let processors = fs_err::read_to_string("/proc/cpuinfo")?;
    let processor = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |line| line.trim_start_matches([' ', '\t', ':']));
    let mut versions = Vec::new();
    for program in programs {
        versions.push(Program::new(program).arg("--version").stdout()?);
    }
    let said = |program: &str, arguments: &[&str]| {
        let program = Program::new(program).args(arguments);
        program.folder(&workspace.root).stdout()
    };
    Ok(json!({
        "date": said("date", &["--utc", "+%Y-%m-%dT%H:%MZ"])?,
        "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        // A source archive has no revision.
        "revision": said("git", &["describe", "--always", "--dirty"]).ok(),
        "system": said("uname", &["-sr"])?,
        "processor": processor,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "load": load,
        "versions": versions,
    }))
}

/// The load, once what was compiled just before is out of it, or when that takes too long.
fn settled() -> Result<f64, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        let load = fs_err::read_to_string("/proc/loadavg")?;
        let load: f64 = first_word(&load).parse().unwrap_or_default();
        if load <= BUSY || Instant::now() > until {
            return Ok(load);
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}
