//! Starting the helper.
#![expect(
    unsafe_code,
    reason = "a descriptor is handed over between fork and exec"
)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use imagespec_core::host::Host;

use crate::control::{DESCRIPTOR, Order, send};
use crate::error::Error;
use crate::job::{Job, Tier};
use crate::scratch::Scratch;

/// A job about to start.
pub(crate) struct Launch {
    program: Vec<PathBuf>,
    order: Order,
    scratch: Scratch,
}

/// A sandbox that was started. Closing `control` ends it.
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) control: UnixStream,
    pub(crate) scratch: Scratch,
}

impl Launch {
    /// Makes the folders of `job`.
    pub(crate) fn new(host: &Host, job: &Job, tier: Tier) -> Result<Self, Error> {
        if job.argv.is_empty() {
            return Err(Error::setup(
                "there is no command",
                std::io::ErrorKind::InvalidInput,
            ));
        }
        if job.layers.is_empty() || job.layers.len() > 480 {
            return Err(Error::setup(
                format!("1 to 480 layers are possible: {}", job.layers.len()),
                std::io::ErrorKind::InvalidInput,
            ));
        }
        let scratch = Scratch::new(job, &host.cache_dir)?;
        let order = Order {
            job: job.clone(),
            tier,
            scratch: scratch.path().to_owned(),
            upper: scratch.upper().to_owned(),
            owners: scratch.owners().to_owned(),
            interactive: false,
        };
        Ok(Self {
            program: host.sandbox_init.clone(),
            order,
            scratch,
        })
    }

    /// Lets the command share the caller's terminal.
    pub(crate) fn interactive(mut self) -> Self {
        self.order.interactive = true;
        self
    }

    /// Starts the helper, with the standard streams that `streams` sets.
    pub(crate) fn start(self, streams: impl FnOnce(&mut Command)) -> Result<Started, Error> {
        let (program, arguments) = self.program.split_first().ok_or_else(|| {
            Error::setup(
                "the host names no program for it",
                std::io::ErrorKind::InvalidInput,
            )
        })?;
        let (mut ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new(program);
        // The helper's own environment can be read inside the sandbox.
        command.args(arguments).env_clear().stderr(Stdio::null());
        command.current_dir("/");
        streams(&mut command);
        let number = theirs.as_raw_fd();
        // SAFETY: between fork and exec only async-signal-safe calls are made, dup2 or fcntl, on a descriptor
        // that `theirs` keeps open until the child has started.
        unsafe {
            command.pre_exec(move || {
                let done = if number == DESCRIPTOR {
                    libc::fcntl(number, libc::F_SETFD, 0)
                } else {
                    libc::dup2(number, DESCRIPTOR)
                };
                if done < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|source| Error::Start {
            program: program.clone(),
            source,
        })?;
        drop(theirs);
        if let Err(source) = send(&mut ours, &self.order) {
            // It has ended already, or it will now.
            drop(ours);
            child.wait()?;
            return Err(Error::setup("send the job", source));
        }
        Ok(Started {
            child,
            control: ours,
            scratch: self.scratch,
        })
    }
}
