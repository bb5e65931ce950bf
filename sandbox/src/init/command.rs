//! The last step: becoming the command.

use std::ffi::CString;
use std::io;

use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::{Failure, Step, seccomp, syscall};
use crate::control::Order;
use crate::job::{Job, Tier};

/// What root may do inside, as container engines have it; nothing of it reaches the host.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// The exit codes of shells for what cannot be started.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Becomes the command of `order`, or fails in setting it up.
pub(super) fn become_command(order: &Order) -> Result<std::convert::Infallible, Failure> {
    if !order.interactive {
        rustix::process::setsid().step("leave the terminal")?;
    }
    drop_capabilities().step("drop capabilities")?;
    if order.tier == Tier::Root {
        let gid = Gid::from_raw(order.job.gid);
        set_thread_groups(&[gid]).step("set groups")?;
        set_thread_res_gid(gid, gid, gid).step("set the group")?;
        let uid = Uid::from_raw(order.job.uid);
        set_thread_res_uid(uid, uid, uid).step("set the user")?;
    }
    set_no_new_privs(true).step("forgo new privileges")?;
    // Older kernels cannot, and the network is the host's by request.
    let _ = syscall::confine();
    seccomp::deny().step("forbid system calls")?;
    set_rlimits().step("set limits")?;
    syscall::restore_signals();
    let error = execute(&order.job);
    let (code, reason) = if error.kind() == io::ErrorKind::NotFound {
        (NOT_FOUND, "not found".to_owned())
    } else {
        (NOT_EXECUTABLE, error.to_string().to_lowercase())
    };
    syscall::complain(&format!("imagespec: `{}`: {reason}\n", order.job.argv[0]));
    syscall::exit(code)
}

/// Forgets for good what the command is not to be able to do: a program gets no capability that is not in
/// the bounding set, not even root's.
fn drop_capabilities() -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // Past the kernel's last one.
            Err(rustix::io::Errno::INVAL) => break,
            removed => removed?,
        }
    }
    Ok(())
}

/// No core files: they would be taken for content, or go to a program of the host.
fn set_rlimits() -> rustix::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
}

/// Executes the program, looked up in `PATH` as execvp(3) does.
fn execute(job: &Job) -> io::Error {
    let string = |text: String| CString::new(text).map_err(io::Error::from);
    let strings = || -> io::Result<_> {
        let arguments: Vec<_> = job
            .argv
            .iter()
            .cloned()
            .map(string)
            .collect::<Result<_, _>>()?;
        let environment: Vec<_> = job
            .env
            .iter()
            .map(|(name, value)| string(format!("{name}={value}")))
            .collect::<Result<_, _>>()?;
        let mut programs = Vec::new();
        let name = &job.argv[0];
        if name.contains('/') {
            programs.push(string(name.clone())?);
        } else {
            let path = job.env.iter().rev().find(|(name, _)| name == "PATH");
            let path = path.map_or(imagespec_core::contract::DEFAULT_PATH, |(_, path)| path);
            for folder in path.split(':') {
                let folder = if folder.is_empty() { "." } else { folder };
                programs.push(string(format!("{folder}/{name}"))?);
            }
        }
        Ok((programs, arguments, environment))
    };
    let (programs, arguments, environment) = match strings() {
        Ok(strings) => strings,
        Err(error) => return error,
    };
    let mut answer = io::Error::from(io::ErrorKind::NotFound);
    for program in &programs {
        let error = syscall::execute(program, &arguments, &environment);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            // Another folder may have one that can be executed.
            io::ErrorKind::PermissionDenied => answer = error,
            _ => return error,
        }
    }
    answer
}
