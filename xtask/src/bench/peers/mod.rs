//! What others need for the same.

mod buildkit;
mod context;
mod docker;
mod kaniko;
mod python;

pub(super) use buildkit::Buildkit;
pub(super) use context::{Context, declared};
pub(super) use docker::Docker;
pub(super) use kaniko::Kaniko;
pub(super) use python::{flytekit, flytekit_check, flytekit_tag, pip_install};

use std::process::Child;
use std::time::{Duration, Instant};

use crate::command::Program;
use crate::error::Error;

/// Somebody to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Peer {
    /// `uv pip install` alone: no image at all
    Uv,
    /// flytekit's check whether an image exists
    Flytekit,
    /// Docker with its own `BuildKit`
    Docker,
    /// `BuildKit`'s own daemon
    Buildkit,
    /// Kaniko's executor
    Kaniko,
}

/// Somebody who builds an image from a Dockerfile and pushes it.
pub(super) trait Builder {
    /// What it is called in results.
    fn name(&self) -> &'static str;

    /// Builds a context and pushes the image.
    fn build(&self, context: &Context) -> Result<(), Error>;

    /// Forgets everything but the base of a context.
    fn forget(&self, context: &Context) -> Result<(), Error>;

    /// Whether it knows again what it built before, without being given a repository for that.
    fn remembers(&self) -> bool {
        true
    }
}

/// Waits until something that was started answers.
fn until(limit: Duration, program: &'static str, answers: impl Fn() -> bool) -> Result<(), Error> {
    let end = Instant::now() + limit;
    while !answers() {
        if Instant::now() > end {
            return Err(Error::Missing { program });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Asks a daemon to end, and waits until it has.
fn end(daemon: &mut Child) {
    // Killed, it would leave its mounts and containers.
    let asked = Program::new("kill").arg(daemon.id().to_string()).succeeds();
    if !asked {
        // It may have ended by itself.
        let _ = daemon.kill();
    }
    let _ = daemon.wait();
}
