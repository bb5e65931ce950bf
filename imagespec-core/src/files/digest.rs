//! Digests of what was found.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache::DigestCache;
use super::walk::{Found, Kind};
use crate::plan::ContextEntry;

/// What was found, as entries of a build context in the same order. Files are digested in parallel,
/// and not read at all where `cache` knows them.
pub fn digest(found: &[Found], cache: &DigestCache) -> io::Result<Vec<ContextEntry>> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let threads = if found.len() < 64 { 1 } else { threads };
    let next = AtomicUsize::new(0);
    let entries = Mutex::new(vec![ContextEntry::Directory; found.len()]);
    let work = || -> io::Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(found) = found.get(index) else {
                return Ok(());
            };
            let entry = entry(found, cache)?;
            if let Ok(mut entries) = entries.lock() {
                entries[index] = entry;
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let other = other
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            result = result.and(other);
        }
        result
    })?;
    entries
        .into_inner()
        .map_err(|_| io::Error::other("a thread panicked"))
}

fn entry(found: &Found, cache: &DigestCache) -> io::Result<ContextEntry> {
    Ok(match &found.kind {
        Kind::File { executable, stamp } => {
            let (digest, size) = cache.digest(&found.host, stamp.as_ref())?;
            ContextEntry::File {
                digest,
                size,
                executable: *executable,
            }
        }
        Kind::Symlink { target } => ContextEntry::Symlink {
            target: target.clone(),
        },
        Kind::Directory => ContextEntry::Directory,
    })
}
