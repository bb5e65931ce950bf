//! A command that is talked to while it runs.

use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Stdio};

use imagespec_core::host::Host;

use crate::control::receive;
use crate::error::Error;
use crate::job::{Exit, Job, Tier};
use crate::launch::{Launch, Started};
use crate::run::{Ending, outcome};

/// A running command with pipes to and from it. Dropping it kills every process of its sandbox.
pub struct Worker {
    /// What the command reads. Closing it is the usual way to ask it to end.
    pub stdin: Option<ChildStdin>,
    /// What the command writes.
    pub stdout: Option<ChildStdout>,
    // Closed before the end is waited for: fields are dropped in order.
    control: UnixStream,
    ending: Ending,
}

/// Starts `job` with pipes for its standard input and output, and `errors` for its standard error.
pub fn spawn(host: &Host, job: &Job, tier: Tier, errors: Stdio) -> Result<Worker, Error> {
    let Started {
        mut child,
        control,
        scratch,
    } = Launch::new(host, job, tier)?.start(|command| {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
    })?;
    Ok(Worker {
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        control,
        ending: Ending(Some((child, scratch))),
    })
}

impl Worker {
    /// Kills every process of the sandbox. Whoever waits at one of its pipes is let go.
    pub fn stop(&self) {
        // Closed already means stopped already.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    /// Closes the command's input and blocks until it has ended and its sandbox is gone.
    pub fn wait(mut self) -> Result<Exit, Error> {
        drop(self.stdin.take());
        let report = receive(&mut self.control);
        drop(self.control);
        if let Some((mut child, scratch)) = self.ending.0.take() {
            child.wait()?;
            drop(scratch);
        }
        outcome(report)
    }
}
