//! Keeps those who build and the one who prunes apart.

use std::io;
use std::path::Path;

use fs4::TryLockError;

/// Held, shared, by everyone who builds: no blob disappears meanwhile. Released when it is dropped, or when
/// its process ends however it ends.
#[derive(Debug)]
pub struct BuildLock {
    _file: std::fs::File,
}

/// Held by the one who prunes: nobody builds meanwhile.
#[derive(Debug)]
pub(crate) struct PruneLock {
    _file: std::fs::File,
}

impl BuildLock {
    /// Waits until nobody prunes. Blocks the thread, for as long as a prune takes.
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        fs4::FileExt::lock_shared(&file)?;
        Ok(Self { _file: file })
    }
}

impl PruneLock {
    /// `None` while somebody builds.
    pub(crate) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Held by whoever makes one thing, which others want too. Released when it is dropped, or when its process ends
/// however it ends.
#[derive(Debug)]
pub struct KeyLock {
    _file: std::fs::File,
}

impl KeyLock {
    /// Waits until nobody else holds it. Blocks the thread.
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        fs4::FileExt::lock(&file)?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let file = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    Ok(file.into_parts().0)
}
