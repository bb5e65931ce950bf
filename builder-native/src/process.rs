//! A program of an image that is talked to while it runs: in a sandbox, or right here where this machine is a container of
//! that image.

use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_sandbox::{Job, Tier, Worker, spawn};

/// Where programs of an image run.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In a sandbox over these layers.
    Sandbox { tier: Tier, rootfs: Vec<PathBuf> },
    /// Here.
    Here,
}

/// A running program.
pub(crate) enum Process {
    Sandbox(Worker),
    Here(Child),
}

impl Place {
    /// The layers, unpacked.
    pub(crate) fn rootfs(&self) -> &[PathBuf] {
        match self {
            Self::Sandbox { rootfs, .. } => rootfs,
            Self::Here => &[],
        }
    }

    /// Starts a program with pipes, and no variables but these.
    pub(crate) fn start(
        &self,
        host: &Host,
        env: Vec<(String, String)>,
        argv: &[String],
    ) -> Result<Process, BuildError> {
        match self {
            Self::Sandbox { tier, rootfs } => {
                let job = Job {
                    env,
                    network: imagespec_sandbox::Network::Isolated,
                    ..Job::new(rootfs.clone(), argv)
                };
                let worker = spawn(host, &job, *tier, Stdio::null())?;
                Ok(Process::Sandbox(worker))
            }
            Self::Here => {
                let (program, arguments) = argv
                    .split_first()
                    .ok_or_else(|| BuildError::failed("there is no command"))?;
                let child = Command::new(program)
                    .args(arguments)
                    .env_clear()
                    .envs(env)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn();
                let child = child.map_err(|error| {
                    BuildError::failed(format!("cannot run `{program}`")).caused_by(&error)
                })?;
                Ok(Process::Here(child))
            }
        }
    }
}

impl Process {
    /// What it reads and what it writes.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        let (stdin, stdout) = match self {
            Self::Sandbox(worker) => (&mut worker.stdin, &mut worker.stdout),
            Self::Here(child) => (&mut child.stdin, &mut child.stdout),
        };
        stdin.take().zip(stdout.take())
    }

    /// Ends it. Whoever waits at one of its pipes is let go.
    pub(crate) fn stop(&mut self) {
        match self {
            Self::Sandbox(worker) => worker.stop(),
            // Ended already means stopped already.
            Self::Here(child) => drop(child.kill()),
        }
    }

    /// Waits for its end: its exit code, where that is not 0.
    pub(crate) fn wait(self) -> Result<Option<String>, BuildError> {
        let (success, code) = match self {
            Self::Sandbox(worker) => {
                let exit = worker.wait()?;
                (exit.success(), exit.code().to_string())
            }
            Self::Here(mut child) => {
                let status = child.wait().map_err(|error| {
                    BuildError::failed("cannot wait for a program").caused_by(&error)
                })?;
                let code = status.code().map(|code| code.to_string());
                (status.success(), code.unwrap_or_else(|| "none".to_owned()))
            }
        };
        Ok((!success).then_some(code))
    }
}
