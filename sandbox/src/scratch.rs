//! Folders that one job needs while it runs, and the removal of trees whose modes resist it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::job::Job;
use crate::owner;
use crate::workspace::Workspace;

const PREFIX: &str = ".sandbox-";

/// The overlay's work folder, the mount points, and the changes if they are discarded. Removed when dropped.
/// A folder that a killed process left behind is removed by the next job in the same place.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    upper: PathBuf,
    owners: PathBuf,
    /// Held while the folder is in use.
    _lock: fs_err::File,
    /// Outlives the folder, which is in it.
    _workspace: Option<Workspace>,
}

impl Scratch {
    /// Makes the folders of `job`: in its workspace, on whose file system they must be, or below `cache`.
    pub(crate) fn new(job: &Job, cache: &Path) -> io::Result<Self> {
        let parent = match &job.workspace {
            Some(workspace) => workspace.path().to_owned(),
            None => cache.join("sandbox"),
        };
        fs_err::create_dir_all(&parent)?;
        sweep(&parent)?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)?
            .keep();
        let lock = fs_err::File::open(&path)?;
        // The sweep of another job may hold it for a moment.
        flock(&lock, FlockOperation::LockExclusive)?;
        let (upper, owners) = match &job.workspace {
            Some(workspace) => {
                let upper = workspace.upper();
                owner::write_layers(&upper, &job.layers)?;
                let owners = owner::table_of(&upper);
                (upper, owners)
            }
            None => (path.join("upper"), path.join("owners")),
        };
        let scratch = Self {
            path,
            upper,
            owners,
            _lock: lock,
            _workspace: job.workspace.clone(),
        };
        for name in ["work", "mounts", "links", "root"] {
            fs_err::create_dir(scratch.path.join(name))?;
        }
        if !scratch.upper.is_dir() {
            fs_err::create_dir(&scratch.upper)?;
            // The mode of the root folder that the command sees.
            fs_err::set_permissions(&scratch.upper, PermissionsExt::from_mode(0o755))?;
        }
        Ok(scratch)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where changes go.
    pub(crate) fn upper(&self) -> &Path {
        &self.upper
    }

    /// Where owners go that cannot be recorded on the files.
    pub(crate) fn owners(&self) -> &Path {
        &self.owners
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What resists is removed by the next job's sweep.
        let _ = remove_tree(&self.path);
    }
}

/// Removes the folders in `parent` that no living process holds.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(folder) = fs_err::File::open(entry.path()) else {
            continue;
        };
        if is_old(&folder) && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove_tree(&entry.path());
        }
    }
    Ok(())
}

/// Whether a folder is older than the moment between being made and being locked.
fn is_old(folder: &fs_err::File) -> bool {
    folder
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|modified| modified.elapsed().ok())
        .is_some_and(|age| age.as_secs() > 60)
}

/// Removes a file or a tree, also where folders' modes deny their owner. What is absent already is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs_err::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    if !fs_err::symlink_metadata(path)?.is_dir() {
        return fs_err::remove_file(path);
    }
    open_folders(path)?;
    fs_err::remove_dir_all(path)
}

/// Gives the owner every right on the folders of a tree.
fn open_folders(root: &Path) -> io::Result<()> {
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        fs_err::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}
