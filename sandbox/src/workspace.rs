//! The folder in which jobs keep their changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::remove_tree;

/// A folder for the changes of jobs. It is removed, whatever the modes in it, when nobody holds it any more: no
/// clone of it, and no job that still runs in it, as one does for a moment after its future was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace(Arc<Folder>);

#[derive(Debug, PartialEq, Eq)]
struct Folder(PathBuf);

impl Workspace {
    /// A new folder in `parent`, whose name begins with `prefix`.
    pub fn new_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        Ok(Self(Arc::new(Folder(folder.keep()))))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.0
    }

    /// Where the changes are, once a job ran. What cannot be recorded on the files themselves is in files beside
    /// it, with `.owners` and `.layers` added to its name.
    pub fn upper(&self) -> PathBuf {
        self.path().join("upper")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What resists is removed with what killed processes left.
        let _ = remove_tree(&self.0);
    }
}
