//! Systems other than Linux: everything is there, and answers that it cannot be done.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, ExitCode, Stdio};

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Unsupported};
use crate::job::{Exit, Job, Tier};

fn unsupported() -> Unsupported {
    Unsupported {
        reason: "it takes Linux".to_owned(),
        hint: Some("Build on Linux, or with a builder that runs elsewhere.".to_owned()),
    }
}

/// The tier of this machine: none.
#[expect(clippy::unused_async, reason = "the signature is that of Linux")]
pub async fn tier(_host: &Host) -> Result<Tier, Unsupported> {
    Err(unsupported())
}

/// Whether what leaves a sandbox has no power; there is none on this system.
pub fn is_ordinary_user() -> bool {
    false
}

/// Runs a job; not on this system.
#[expect(clippy::unused_async, reason = "the signature is that of Linux")]
pub async fn run(
    _host: &Host,
    _job: &Job,
    _tier: Tier,
    _on_line: &mut (dyn FnMut(&str) + Send),
    _cancel: &CancellationToken,
) -> Result<Exit, Error> {
    Err(unsupported().into())
}

/// Runs a job with the caller's terminal; not on this system.
#[expect(clippy::unused_async, reason = "the signature is that of Linux")]
pub async fn exec(_host: &Host, _job: &Job, _tier: Tier) -> Result<u8, Error> {
    Err(unsupported().into())
}

/// Starts a job; not on this system.
pub fn spawn(_host: &Host, _job: &Job, _tier: Tier, _errors: Stdio) -> Result<Worker, Error> {
    Err(unsupported().into())
}

/// Waits for sandboxes that end; there is none on this system.
pub fn settle() {}

/// The helper; not on this system.
pub fn init() -> ExitCode {
    ExitCode::FAILURE
}

/// Unpacks a layer; not on this system.
pub fn unpack(_reader: impl Read, _dest: &Path, _tier: Tier) -> Result<(), Error> {
    Err(unsupported().into())
}

/// Removes a file or a tree. What is absent already is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A running command; there is none on this system.
#[derive(Debug)]
pub struct Worker {
    /// What the command reads.
    pub stdin: Option<ChildStdin>,
    /// What the command writes.
    pub stdout: Option<ChildStdout>,
}

impl Worker {
    /// Ends the command.
    pub fn stop(&self) {}

    /// Waits for the command.
    pub fn wait(self) -> Result<Exit, Error> {
        Err(unsupported().into())
    }
}

/// A folder of unpacked layers; there is none on this system.
#[derive(Debug, Clone)]
pub struct Snapshots(());

impl Snapshots {
    /// Opens the folder; not on this system.
    pub fn open(_dir: &Path, _tier: Tier) -> Result<Self, Error> {
        Err(unsupported().into())
    }

    /// The folder of a layer.
    pub fn ensure<R: Read>(
        &self,
        _diff_id: &Digest,
        _open: impl FnOnce() -> io::Result<R>,
    ) -> Result<PathBuf, Error> {
        Err(unsupported().into())
    }

    /// Whether a layer is there.
    pub fn has(&self, _diff_id: &Digest) -> bool {
        false
    }

    /// Removes a layer.
    pub fn remove(&self, _diff_id: &Digest) -> Result<(), Error> {
        Err(unsupported().into())
    }
}

/// An upper directory as a layer.
pub mod changes {
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use imagespec_oci::layer::LayerWriter;

    use super::unsupported;
    use crate::error::Error;
    use crate::job::Tier;

    /// Writes the changes; not on this system.
    pub fn write<W: Write>(
        _upper: &Path,
        _tier: Tier,
        _ids: (u32, u32),
        _layer: &mut LayerWriter<W>,
        _exclude: &[PathBuf],
    ) -> Result<u64, Error> {
        Err(unsupported().into())
    }
}
