//! `cargo xtask bench`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::command::Program;
use crate::error::Error;
use crate::workspace::Workspace;
use crate::{report, tools};

/// How often to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each cold build is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cold: u32,
    /// How often the build of what exists already is measured
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    warm: u32,
}

/// Times, in this order and in one run, so that they share the machine's mood: `uv pip install` of the
/// example's requirements and a build of the example, each with empty caches, in turns; then builds of what
/// exists already. Writes `target/bench/hello.json`.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Error> {
    workspace
        .cargo("build")
        .args(["--locked", "--release", "--package", "imagespec-cli"])
        .run()?;
    let program = workspace.target.join("release/imagespec");
    let example = workspace.root.join("examples/hello");
    let uv = tools::uv(workspace)?;
    let folder = workspace.target.join("bench");
    fs_err::create_dir_all(&folder)?;
    let mut install = Vec::new();
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    let mut place = tempfile::tempdir_in(&folder)?;
    for round in 0..arguments.cold {
        if round > 0 {
            place = tempfile::tempdir_in(&folder)?;
        }
        install.push(timed(|| pip_install(&uv, &example, place.path()))?);
        cold.push(timed(|| build(&program, &example, place.path()))?);
    }
    for _ in 0..arguments.warm {
        warm.push(timed(|| build(&program, &example, place.path()))?);
    }
    let measures = [
        ("uv pip install, cold", median(&mut install), &install),
        ("imagespec build, cold", median(&mut cold), &cold),
        ("imagespec build, nothing to do", median(&mut warm), &warm),
    ];
    let base = measures[0].1;
    report::heading("medians, and ratios to `uv pip install`");
    for (name, median, _) in &measures {
        report::note(&format!(
            "{name:<31} {:>9.1} ms  {:>6.3}",
            milliseconds(*median),
            median.as_secs_f64() / base.as_secs_f64()
        ));
    }
    let document = json!({
        "example": "examples/hello",
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "unit": "ms",
        "measures": measures.map(|(name, median, samples)| json!({
            "name": name,
            "median": milliseconds(median),
            "ratio": median.as_secs_f64() / base.as_secs_f64(),
            "samples": samples.iter().copied().map(milliseconds).collect::<Vec<_>>(),
        })),
    });
    fs_err::write(folder.join("hello.json"), format!("{document:#}\n"))?;
    Ok(())
}

fn build(program: &Path, example: &Path, place: &Path) -> Result<(), Error> {
    Program::new(program)
        .arg("-C")
        .arg(example)
        .args(["build", "--progress", "quiet"])
        .env("IMAGESPEC_CACHE_DIR", place.join("imagespec"))
        .stdout()
        .map(drop)
}

fn pip_install(uv: &Path, example: &Path, place: &Path) -> Result<(), Error> {
    let uv = |subcommand: &[&str]| {
        Program::new(uv)
            .arg("--quiet")
            .args(subcommand)
            .env("UV_CACHE_DIR", place.join("uv"))
    };
    let venv = place.join("venv");
    uv(&["venv", "--no-python-downloads"]).arg(&venv).run()?;
    uv(&["pip", "install", "--compile-bytecode", "--python"])
        .arg(&venv)
        .arg("--requirements")
        .arg(example.join("requirements.txt"))
        .run()
}

fn timed(work: impl FnOnce() -> Result<(), Error>) -> Result<Duration, Error> {
    let start = Instant::now();
    work().map(|()| start.elapsed())
}

/// The middle one, after sorting; zero of none.
fn median(samples: &mut [Duration]) -> Duration {
    samples.sort();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let mut samples = [3, 1, 2].map(Duration::from_millis);
        assert_eq!(median(&mut samples), Duration::from_millis(2));
        assert_eq!(median(&mut []), Duration::ZERO);
    }
}
