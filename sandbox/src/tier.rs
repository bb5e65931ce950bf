//! What this machine offers, found by trying.

use imagespec_core::host::Host;

use crate::error::{Error, Unsupported};
use crate::job::{Exit, Job, Network, Tier};
use crate::launch::Launch;
use crate::run::finish;

/// The program name that makes the sandbox end at once with success, everything set up.
pub(crate) const PROBE: &str = "\0probe";

/// The tier of this machine, for the cache folder's file system. Makes a whole sandbox and runs nothing in it:
/// some milliseconds.
pub async fn tier(host: &Host) -> Result<Tier, Unsupported> {
    let tiers: &[Tier] = if rustix::process::geteuid().is_root() {
        &[Tier::Root, Tier::SingleId]
    } else {
        &[Tier::SingleId]
    };
    let mut reasons = Vec::new();
    for tier in tiers {
        match probe(host, *tier).await {
            Ok(()) => return Ok(*tier),
            Err(error) => reasons.push(describe(&error)),
        }
    }
    let reason = reasons.pop().unwrap_or_default();
    Err(Unsupported {
        hint: hint(&reason),
        reason,
    })
}

/// Makes a sandbox over an empty layer.
async fn probe(host: &Host, tier: Tier) -> Result<(), Error> {
    let parent = host.cache_dir.join("sandbox");
    fs_err::create_dir_all(&parent)?;
    let layer = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(&parent)?;
    let mut job = Job::new(vec![layer.path().to_owned()], [PROBE]);
    job.network = Network::Host;
    let launch = Launch::new(host, &job, tier)?;
    match finish(launch.start(|command| {
        command.stdin(std::process::Stdio::null());
    })?)
    .await?
    {
        Exit::Code(0) => Ok(()),
        _ => Err(Error::Lost),
    }
}

/// An error with its causes on one line.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What to do where a step of the probe fails.
fn hint(reason: &str) -> Option<String> {
    let switched_off =
        |file: &str, off: &str| fs_err::read_to_string(file).is_ok_and(|value| value.trim() == off);
    if switched_off("/proc/sys/user/max_user_namespaces", "0") {
        return Some("Allow user namespaces: `sysctl user.max_user_namespaces=15000`.".to_owned());
    }
    if switched_off("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some(
            "Allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`.".to_owned(),
        );
    }
    if switched_off(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        return Some(
            "Allow user namespaces: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root."
                .to_owned(),
        );
    }
    if reason.contains("overlay") {
        return Some(
            "Put the cache on a file system that can hold an overlay's upper directory, as ext4 or xfs, \
             and use Linux 5.11 or newer."
                .to_owned(),
        );
    }
    Some(
        "In a container, allow user namespaces and mounts (a seccomp profile or `--privileged`), or run \
         as root."
            .to_owned(),
    )
}
