//! The first process of the process namespace: it makes the root file system, starts the command, reaps what
//! is orphaned, passes signals on, and ends everything when the command ends or the caller is gone.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::thread::UnshareFlags;

use super::supervise::Supervisor;
use super::watch::{self, Watch};
use super::{Failure, Step, command, root, seccomp, syscall};
use crate::control::{Order, Report, Request, receive, send};
use crate::job::{Exit, Network, Tier};
use crate::tier::PROBE;

/// The number of the signal that ends what nobody waits for any more.
const KILLED: u8 = 9;

/// How much time passes at least between two looks at what is used.
const LOOK: Duration = Duration::from_millis(90);

/// The process itself.
pub(super) fn main(order: &Order, mut control: UnixStream, signals: &OwnedFd) -> ! {
    let report = match live(order, &mut control, signals) {
        Ok(report) => report,
        Err(failure) => {
            end_everything();
            failure.report(&mut control);
            syscall::exit(super::FAILED)
        }
    };
    // The caller may be gone, which is how it says that it does not want to know.
    let _ = send(&mut control, &report);
    syscall::exit(0)
}

fn live(order: &Order, control: &mut UnixStream, signals: &OwnedFd) -> Result<Report, Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .step("follow the helper")?;
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if order.job.network == Network::Isolated {
        flags |= UnshareFlags::NEWNET;
    }
    syscall::unshare(flags).step("enter namespaces")?;
    rustix::system::sethostname(order.job.hostname.as_bytes()).step("set the host name")?;
    if order.job.network == Network::Isolated {
        syscall::raise_loopback().step("raise the loopback interface")?;
    }
    let owners = File::options()
        .create(true)
        .append(true)
        .open(&order.owners)
        .step("open the table of owners")?;
    let watch = Watch::new(order.job.limits, &order.upper).step("watch the changes")?;
    // Where it cannot be bounded, the watch still sees it.
    let _ = watch::bound_processes(&order.job.limits);
    let root = root::enter(order)?;
    if order.job.argv[0] == PROBE {
        return Ok(Report::Ended(Exit::Code(0)));
    }
    let supervisor = if order.tier == Tier::SingleId && order.job.uid == 0 {
        rustix::thread::set_no_new_privs(true).step("forgo new privileges")?;
        let listener = seccomp::install().step("watch changes of owners")?;
        Some(Supervisor::new(listener, owners).step("watch changes of owners")?)
    } else {
        None
    };
    let Some(child) = syscall::fork().step("start the command")? else {
        match command::become_command(order) {
            Err(failure) => {
                failure.report(control);
                syscall::exit(super::FAILED)
            }
        }
    };
    let report = attend(child, control, signals, (supervisor, watch));
    end_everything();
    root.leave();
    report
}

/// Serves until the command has ended or used too much, or the caller is gone.
fn attend(
    child: Pid,
    control: &mut UnixStream,
    signals: &OwnedFd,
    (mut supervisor, mut watch): (Option<Supervisor>, Watch),
) -> Result<Report, Failure> {
    let mut looked = Instant::now();
    loop {
        let interval = watch.interval();
        let [signalled, requested, notified] =
            ready(control, signals, supervisor.as_ref(), interval)?;
        if interval.is_some() && looked.elapsed() >= LOOK {
            if let Some(limit) = watch.exceeded() {
                return Ok(Report::Exceeded(limit));
            }
            looked = Instant::now();
        }
        if notified && let Some(supervisor) = &mut supervisor {
            supervisor.serve();
        }
        if signalled {
            while let Some((number, sent)) = syscall::next_signal(signals) {
                if number != libc::SIGCHLD && sent {
                    pass_on(child, number);
                }
            }
            if let Some(exit) = reap(child) {
                return Ok(Report::Ended(exit));
            }
        }
        if requested {
            match receive::<Request>(control) {
                Ok(Request::Signal(number)) => pass_on(child, number),
                Err(_) => return Ok(Report::Ended(Exit::Signal(KILLED))),
            }
        }
    }
}

/// Waits until a signal, a request or a notification is there to be read.
fn ready(
    control: &UnixStream,
    signals: &OwnedFd,
    supervisor: Option<&Supervisor>,
    wait: Option<&Timespec>,
) -> Result<[bool; 3], Failure> {
    let mut descriptors = vec![
        PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN),
    ];
    if let Some(supervisor) = supervisor {
        let listener = supervisor.listener().as_fd();
        descriptors.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
    }
    match poll(&mut descriptors, wait) {
        Err(Errno::INTR) => return Ok([false; 3]),
        polled => polled.step("wait for the command")?,
    };
    let mut ready = [false; 3];
    for (ready, descriptor) in ready.iter_mut().zip(&descriptors) {
        *ready = !descriptor.revents().is_empty();
    }
    Ok(ready)
}

/// Reaps every process that has ended; how the command did, if it is among them.
fn reap(child: Pid) -> Option<Exit> {
    let mut exit = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            let number = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
            exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Some(Exit::Code(number(code))),
                (None, Some(signal)) => Some(Exit::Signal(number(signal))),
                (None, None) => None,
            };
        }
    }
    exit
}

/// Sends the command a signal. It may have ended, which the next turn finds out.
fn pass_on(child: Pid, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        let _ = kill_process(child, signal);
    }
}

/// Kills every process of the namespace but this one, and waits until they are gone.
fn end_everything() {
    syscall::kill_all();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
