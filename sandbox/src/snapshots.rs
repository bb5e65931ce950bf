//! Layers that were unpacked, each once.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use imagespec_core::digest::Digest;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::job::Tier;
use crate::scratch::remove_tree;
use crate::unpack::unpack;

/// A folder of unpacked layers, by diff id. Several processes may share it.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
    tier: Tier,
}

impl Snapshots {
    /// The layers in the form of `tier` below `dir`, which is made if missing.
    pub fn open(dir: &Path, tier: Tier) -> Result<Self, Error> {
        let folder = dir.join(tier.name());
        fs_err::create_dir_all(&folder)?;
        // Programs in it may run as their owner whoever starts them: nobody else is to reach them.
        fs_err::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
        Ok(Self { folder, tier })
    }

    /// The folder of the layer with `diff_id`. If it is not there, it is unpacked from what `open` answers,
    /// the layer's uncompressed tar, whose digest is checked. Blocks, also while another process unpacks the
    /// same layer; a folder that is there is complete.
    pub fn ensure<R: Read>(
        &self,
        diff_id: &Digest,
        open: impl FnOnce() -> io::Result<R>,
    ) -> Result<PathBuf, Error> {
        let path = self.path(diff_id);
        if path.is_dir() {
            self.used(diff_id);
            return Ok(path);
        }
        let lock = self.lock(diff_id)?;
        if path.is_dir() {
            return Ok(path);
        }
        let partial = self.folder.join(format!("{}.partial", diff_id.hex()));
        remove_tree(&partial)?;
        fs_err::create_dir(&partial)?;
        let done = self.fill(&partial, diff_id, open).and_then(|()| {
            fs_err::rename(&partial, &path)?;
            Ok(())
        });
        if done.is_err() {
            // The next attempt removes what resists.
            let _ = remove_tree(&partial);
        }
        drop(lock);
        done.map(|()| path)
    }

    /// Leaves the time on the lock, by which whoever prunes knows that the layer is of use.
    fn used(&self, diff_id: &Digest) {
        let lock = self.folder.join(format!("{}.lock", diff_id.hex()));
        let file = fs_err::File::options().write(true).open(lock);
        // It is none the less there.
        let _ = file.and_then(|file| file.file().set_modified(std::time::SystemTime::now()));
    }

    /// Whether the layer with `diff_id` is there.
    pub fn has(&self, diff_id: &Digest) -> bool {
        self.path(diff_id).is_dir()
    }

    /// Removes the layer with `diff_id`, if it is there. No job may be using it.
    pub fn remove(&self, diff_id: &Digest) -> Result<(), Error> {
        let _lock = self.lock(diff_id)?;
        let path = self.path(diff_id);
        let doomed = self.folder.join(format!("{}.partial", diff_id.hex()));
        remove_tree(&doomed)?;
        // Renamed first: what is half removed must not look complete.
        match fs_err::rename(&path, &doomed) {
            Ok(()) => Ok(remove_tree(&doomed)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, diff_id: &Digest) -> PathBuf {
        self.folder.join(diff_id.hex())
    }

    /// Holds a layer against other processes until dropped.
    fn lock(&self, diff_id: &Digest) -> Result<fs_err::File, Error> {
        let path = self.folder.join(format!("{}.lock", diff_id.hex()));
        let lock = fs_err::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        Ok(lock)
    }

    /// Unpacks into `partial`, checks the digest, and brings it to the disk.
    fn fill<R: Read>(
        &self,
        partial: &Path,
        diff_id: &Digest,
        open: impl FnOnce() -> io::Result<R>,
    ) -> Result<(), Error> {
        let mut hashing = Hashing {
            reader: open()?,
            hash: Sha256::new(),
        };
        unpack(&mut hashing, partial, self.tier)?;
        // What follows the archive's end belongs to the layer as well.
        io::copy(&mut hashing, &mut io::sink())?;
        let found = Digest::from_bytes(hashing.hash.finalize().into());
        if found != *diff_id {
            return Err(Error::Digest {
                expected: diff_id.to_string(),
                found: found.to_string(),
            });
        }
        let folder = fs_err::File::open(partial)?;
        rustix::fs::syncfs(&folder).map_err(io::Error::from)?;
        Ok(())
    }
}

/// A reader whose bytes are digested.
struct Hashing<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
