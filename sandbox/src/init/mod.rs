//! Inside the helper: from a fresh process to the command in its root file system.
//!
//! Three processes: the helper enters the user and process namespaces and waits; its child, the first of the
//! process namespace, makes the root file system, records owners, reaps and passes signals on; its child in
//! turn becomes the command.

mod command;
mod device;
mod first;
mod namespace;
mod resolve;
mod root;
mod seccomp;
mod supervise;
mod syscall;
mod watch;

use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::io::Errno;

use crate::control::{DESCRIPTOR, Order, Report, receive, send};

/// The exit code of a helper that could not do its work; what it could not do is in its report.
const FAILED: u8 = 125;

/// The helper itself: what a program does when it is started by the name and arguments of
/// [`Host::sandbox_init`](imagespec_core::host::Host::sandbox_init). To be called before any thread starts.
pub fn init() -> ExitCode {
    let Some(descriptor) = syscall::adopt(DESCRIPTOR) else {
        syscall::complain("imagespec: this is started by imagespec itself, never by hand\n");
        return ExitCode::from(FAILED);
    };
    // Through any other that the caller's caller left open, a command could leave the sandbox.
    syscall::close_from(DESCRIPTOR + 1);
    let mut control = UnixStream::from(descriptor);
    let Ok(order) = receive::<Order>(&mut control) else {
        syscall::complain("imagespec: this is started by imagespec itself, never by hand\n");
        return ExitCode::from(FAILED);
    };
    match control
        .try_clone()
        .step("keep the control socket")
        .and_then(|kept| namespace::enter(&order, kept))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(&mut control);
            ExitCode::from(FAILED)
        }
    }
}

/// A step of the set-up that the system refused.
#[derive(Debug)]
struct Failure {
    step: String,
    errno: i32,
}

impl Failure {
    /// Tells the caller. There is nobody else to tell if that fails.
    fn report(self, control: &mut UnixStream) {
        let _ = send(
            control,
            &Report::Failed {
                step: self.step,
                errno: self.errno,
            },
        );
    }
}

/// Names the step that a result belongs to.
trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T> Step<T> for rustix::io::Result<T> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            step: step.into(),
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: step.into(),
            errno: Errno::from_io_error(&error).map_or(0, Errno::raw_os_error),
        })
    }
}
