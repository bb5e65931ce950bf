//! What this machine offers, found by trying.

use imagespec_core::host::Host;

use crate::error::{Error, Unsupported};
use crate::job::{Exit, Job, Network, Tier};
use crate::launch::Launch;
use crate::run::finish;

/// The program name that makes the sandbox end at once with success, everything set up.
pub(crate) const PROBE: &str = "\0probe";

/// Whether what leaves a sandbox meets this machine as a user without any power over it.
pub fn is_ordinary_user() -> bool {
    !rustix::process::geteuid().is_root()
}

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
        hint: Some(hint(&reason).to_owned()),
        reason,
    })
}

/// Makes a sandbox over an empty layer.
async fn probe(host: &Host, tier: Tier) -> Result<(), Error> {
    let parent = host.cache_dir.join("sandbox");
    fs_err::create_dir_all(&parent)?;
    let layer = tempfile::Builder::new()
        .prefix(".probe-")
        .tempdir_in(&parent)?;
    // Who sweeps the cache leaves what is locked.
    let held = fs_err::File::open(layer.path())?;
    held.file().lock_shared()?;
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

/// Settings that forbid user namespaces: the file, the value that forbids, and what to do.
const SWITCHES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "Allow user namespaces: `sysctl user.max_user_namespaces=15000`.",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "Allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`.",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "Allow user namespaces: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root.",
    ),
];

/// What to do where a step of the probe fails.
fn hint(reason: &str) -> &'static str {
    for (file, forbids, hint) in SWITCHES {
        if fs_err::read_to_string(file).is_ok_and(|value| value.trim() == forbids) {
            return hint;
        }
    }
    if reason.contains("overlay") {
        return "Put the cache on a file system that can hold an overlay's upper directory, as ext4 or \
                xfs, and use Linux 5.11 or newer.";
    }
    "In a container, allow user namespaces and mounts (a seccomp profile or `--privileged`), or run as root."
}
