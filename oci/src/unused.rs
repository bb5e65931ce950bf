//! What a cache holds beside blobs and could have again: downloads, what was found out, and root file systems. It
//! goes when it was not used for a time, and the longest unused first where there is too much.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::leftovers::{children, held, remove};

/// Folders of a cache, and how deep in them lies what is kept or removed as a whole.
///
/// Not among them: what is never large (`registries`), and what keeps an archive from going back in time
/// (`debian/releases`).
const FOLDERS: [(&str, usize); 16] = [
    ("bases", 1),
    ("built", 1),
    ("conda/environments", 1),
    ("conda/facts", 1),
    ("conda/lists", 1),
    ("conda/packages", 1),
    ("conda/shards", 1),
    ("debian/indexes", 1),
    ("debian/packages", 1),
    ("git", 1),
    ("locks", 1),
    ("pythons", 1),
    (SNAPSHOTS, 2),
    ("tools", 1),
    ("uv", 0),
    ("wheels", 1),
];
/// Root file systems, in which whoever runs an image looks without the lock of those who build.
const SNAPSHOTS: &str = "snapshots";
/// Where those who run images hold a folder.
const RUNNING: &str = "sandbox";

/// How much may stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What was not used for that long goes.
    pub(crate) unused: Duration,
    /// Bytes of what stays, at most.
    pub(crate) size: Option<u64>,
}

struct Kept {
    used: SystemTime,
    size: u64,
    path: PathBuf,
}

/// Removes what is out of bounds; answers how many things, and their bytes. Nobody may build meanwhile.
pub(crate) fn trim(cache: &Path, bounds: Bounds) -> io::Result<(usize, u64)> {
    let running = children(&cache.join(RUNNING))?
        .iter()
        .any(|path| held(path));
    let mut kept = Vec::new();
    for (folder, depth) in FOLDERS {
        let folder = cache.join(folder);
        if depth == 0 && folder.is_dir() {
            keep(folder, &mut kept)?;
        } else if !(folder.ends_with(SNAPSHOTS) && running) {
            collect(&folder, depth, &mut kept)?;
        }
    }
    kept.sort_by_key(|kept| kept.used);
    let mut left: u64 = kept.iter().map(|kept| kept.size).sum();
    let oldest = SystemTime::now().checked_sub(bounds.unused);
    let (mut things, mut bytes) = (0, 0);
    for Kept { used, size, path } in kept {
        let is_old = oldest.is_some_and(|oldest| used <= oldest);
        if is_old || bounds.size.is_some_and(|most| left > most) {
            remove(&path)?;
            left -= size;
            things += 1;
            bytes += size;
        }
    }
    Ok((things, bytes))
}

fn collect(folder: &Path, depth: usize, kept: &mut Vec<Kept>) -> io::Result<()> {
    for path in children(folder)? {
        let is_lock = path
            .extension()
            .is_some_and(|extension| extension == "lock");
        if depth > 1 {
            collect(&path, depth - 1, kept)?;
        } else if !is_lock {
            keep(path, kept)?;
        }
    }
    Ok(())
}

fn keep(path: PathBuf, kept: &mut Vec<Kept>) -> io::Result<()> {
    let (used, size) = measure(&path)?;
    kept.push(Kept { used, size, path });
    Ok(())
}

/// When a thing was last used: a file by its times, a folder by what is directly in it and by the lock beside it; and
/// how many bytes are in it altogether. What cannot be looked into counts nothing.
fn measure(path: &Path) -> io::Result<(SystemTime, u64)> {
    let mut used = last_use(&fs_err::symlink_metadata(path)?)?;
    if let Ok(lock) = fs_err::symlink_metadata(path.with_extension("lock")) {
        used = used.max(last_use(&lock)?);
    }
    for child in children(path).unwrap_or_default() {
        used = used.max(last_use(&fs_err::symlink_metadata(child)?)?);
    }
    Ok((used, size(path)?))
}

fn last_use(metadata: &std::fs::Metadata) -> io::Result<SystemTime> {
    let written = metadata.modified()?;
    // To look what is in a folder is not to use it.
    let read = metadata.accessed().ok().filter(|_| !metadata.is_dir());
    Ok(read.map_or(written, |read| read.max(written)))
}

fn size(path: &Path) -> io::Result<u64> {
    let metadata = fs_err::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut size = 0;
    for child in children(path).unwrap_or_default() {
        size += self::size(&child)?;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn what_is_old_goes_and_then_the_oldest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let all = [
            ("wheels/aa/a.whl", 40),
            ("debian/packages/b.deb", 20),
            ("snapshots/root/cc/usr/file", 99),
            ("pythons/d.tar.gz", 5),
            ("debian/releases/e", 90),
            ("registries/f.json", 90),
            ("snapshots/root/cc.lock", 9),
        ];
        for (name, days) in all {
            let path = path(name);
            let parent = path.parent().expect("a folder");
            fs_err::create_dir_all(parent).expect("a folder");
            let file = fs_err::File::create(&path).expect("a file");
            file.set_len(100).expect("a size");
            let time = SystemTime::now() - DAY * days;
            let times = std::fs::FileTimes::new()
                .set_accessed(time)
                .set_modified(time);
            file.file().set_times(times).expect("times");
            // The folders that are kept or removed as one.
            let unit = if name.starts_with("snapshots") {
                parent.parent().expect("a folder")
            } else {
                parent
            };
            for folder in [parent, unit] {
                let folder = fs_err::File::open(folder).expect("a folder");
                folder.file().set_times(times).expect("times");
            }
        }
        let there = || all.map(|(name, _)| path(name).exists());
        let bounds = |days: u32, size| Bounds {
            unused: DAY * days,
            size,
        };
        let trim = |bounds| trim(folder.path(), bounds).expect("a trim");
        assert_eq!(trim(bounds(60, None)), (0, 0));
        assert_eq!(trim(bounds(30, None)), (1, 100));
        assert_eq!(there(), [false, true, true, true, true, true, true]);

        // Who runs an image needs its root file system.
        let running = path("sandbox/.sandbox-x");
        fs_err::create_dir_all(&running).expect("a folder");
        let held = fs_err::File::open(running).expect("a folder");
        held.file().lock_shared().expect("a lock");
        assert_eq!(trim(bounds(60, Some(100))), (1, 100));
        assert_eq!(there(), [false, false, true, true, true, true, true]);
        drop(held);
        assert_eq!(trim(bounds(60, Some(100))), (1, 100));
        assert_eq!(there(), [false, false, false, true, true, true, true]);
        assert_eq!(trim(bounds(0, None)), (1, 100));
        assert_eq!(there(), [false, false, false, false, true, true, true]);
    }
}
