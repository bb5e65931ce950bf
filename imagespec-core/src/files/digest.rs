//! Digests of what was found.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::cache::{DigestCache, Stamp};
use super::walk::{Found, Kind};
use crate::plan::ContextEntry;

/// How many files a thread takes at a time.
const SHARE: usize = 64;
/// The most threads, which compete for one disk.
const THREADS: usize = 8;

/// What was found, as entries of a build context in the same order. Files are digested in parallel,
/// and not read at all where `cache` knows them.
pub fn digest(found: &[Found], cache: &DigestCache) -> io::Result<Vec<ContextEntry>> {
    let shares: Vec<_> = found.chunks(SHARE).collect();
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<Vec<(usize, Vec<ContextEntry>)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(share) = shares.get(index) else {
                return Ok(done);
            };
            let entries = share.iter().map(|found| entry(found, cache));
            done.push((index, entries.collect::<io::Result<_>>()?));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS).min(shares.len());
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        others.into_iter().map(joined).fold(mine, |all, other| {
            let mut all = all?;
            all.extend(other?);
            Ok(all)
        })
    })?;
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().flat_map(|(_, entries)| entries).collect())
}

fn joined<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    let panicked = |_| Err(io::Error::other("a thread panicked"));
    thread.join().unwrap_or_else(panicked)
}

fn entry(found: &Found, cache: &DigestCache) -> io::Result<ContextEntry> {
    Ok(match &found.kind {
        Kind::File => {
            let metadata = fs_err::symlink_metadata(&found.host)?;
            #[cfg(unix)]
            let executable =
                std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
            #[cfg(not(unix))]
            let executable = false;
            let stamp = Stamp::of(&metadata);
            let (digest, size) = cache.digest(&found.host, stamp.as_ref())?;
            ContextEntry::File {
                digest,
                size,
                executable,
            }
        }
        Kind::Symlink { target } => ContextEntry::Symlink {
            target: target.clone(),
        },
        Kind::Directory => ContextEntry::Directory,
    })
}
