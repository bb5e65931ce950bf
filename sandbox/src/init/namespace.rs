//! The helper: into the user and process namespaces, then wait for the first process in them.

use std::os::unix::net::UnixStream;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, set_dumpable_behavior, waitpid};
use rustix::thread::UnshareFlags;

use super::syscall::unshare;
use super::{Failure, Step, first, syscall};
use crate::control::Order;
use crate::job::{Job, Tier};

/// Enters the namespaces and waits until everything in them has ended.
pub(super) fn enter(order: &Order, control: UnixStream) -> Result<(), Failure> {
    // Signals of a terminal are the command's business.
    let signals = syscall::take_signals().step("block signals")?;
    // What is made inside, by us or by the command, does not depend on the caller's.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match order.tier {
        Tier::Root => unshare(UnshareFlags::NEWPID).step("enter a process namespace")?,
        Tier::SingleId => enter_user_namespace(&order.job)?,
    }
    // Otherwise the command could reach this program's file through /proc.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become opaque")?;
    match syscall::fork().step("start the first process")? {
        None => first::main(order, control, &signals),
        Some(first) => {
            drop(control);
            wait(first)
        }
    }
}

/// Enters a user namespace in which the caller has the job's id, and every capability.
fn enter_user_namespace(job: &Job) -> Result<(), Failure> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID).step("enter a user namespace")?;
    // The kernel asks for it before an unprivileged process may map a group.
    fs_err::write("/proc/self/setgroups", "deny").step("give up groups")?;
    fs_err::write("/proc/self/uid_map", format!("{} {uid} 1", job.uid)).step("map the user")?;
    fs_err::write("/proc/self/gid_map", format!("{} {gid} 1", job.gid)).step("map the group")
}

/// Waits for a process to end, however it does: it has told the caller by itself.
fn wait(pid: Pid) -> Result<(), Failure> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).step("wait for the first process"),
            Ok(_) => return Ok(()),
        }
    }
}
