//! What processes that were killed left in a cache.

use std::io;
use std::path::Path;

/// How files and folders are called before they have their name, everywhere in a cache.
const TEMPORARY: [&str; 18] = [
    ".archive-",
    ".build-",
    ".built-",
    ".clone-",
    ".context-",
    ".copy-",
    ".doctor-",
    ".download-",
    ".imagespec-",
    ".layout-",
    ".lent-",
    ".list-",
    ".resolve-",
    ".run-",
    ".saved-",
    ".tmp-",
    ".tools-",
    ".uv-",
];
/// Folders of the sandbox, which whoever runs an image holds locked, too.
const HELD: [&str; 2] = [".probe-", ".sandbox-"];
/// Folders that are other programs' affair: uv's cache, and file systems of images.
const FOREIGN: [&str; 2] = ["uv", "snapshots"];
/// How deep the folders of a cache are.
const DEPTH: usize = 6;
/// The folder of repositories, and how deep it is above their checkouts, in which names are other people's.
const REPOSITORIES: (&str, usize) = ("git", 1);

/// Removes them, and answers how many there were. Nobody may build in the cache meanwhile; whoever runs an image
/// may, and what it unpacks stays.
pub(crate) fn sweep(cache: &Path) -> io::Result<usize> {
    let skipped = |name: &str| FOREIGN.contains(&name) || name == REPOSITORIES.0;
    let mut removed = below(cache, DEPTH, &skipped)?;
    removed += below(&cache.join(REPOSITORIES.0), REPOSITORIES.1, &|_| false)?;
    for tier in children(&cache.join("snapshots"))? {
        for path in children(&tier)? {
            if path
                .extension()
                .is_some_and(|extension| extension == "partial")
                && unlocked(&path)
            {
                remove(&path)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn below(folder: &Path, depth: usize, foreign: &dyn Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for path in children(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is = |prefix: &&str| name.starts_with(*prefix);
        if TEMPORARY.iter().any(is) || HELD.iter().any(is) && free(&path) {
            remove(&path)?;
            removed += 1;
        } else if depth > 0 && !foreign(&name) && fs_err::symlink_metadata(&path)?.is_dir() {
            removed += below(&path, depth - 1, &|_| false)?;
        }
    }
    Ok(removed)
}

/// What is in a folder; nothing where there is none.
pub(crate) fn children(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    match fs_err::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Whether nobody unpacks into a folder: who does holds the lock beside it.
fn unlocked(partial: &Path) -> bool {
    match fs_err::File::open(partial.with_extension("lock")) {
        Ok(lock) => lock.file().try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether nobody holds a folder locked.
fn free(folder: &Path) -> bool {
    fs_err::File::open(folder).is_ok_and(|folder| folder.file().try_lock().is_ok())
}

/// Whether somebody holds a folder locked.
pub(crate) fn held(folder: &Path) -> bool {
    fs_err::File::open(folder).is_ok_and(|folder| folder.file().try_lock().is_err())
}

/// Removes a file or a tree, also where folders' modes deny their owner.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if !fs_err::symlink_metadata(path)?.is_dir() {
        return fs_err::remove_file(path);
    }
    if fs_err::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_folders(path)?;
    fs_err::remove_dir_all(path)
}

fn open_folders(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs_err::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for path in children(folder)? {
        if fs_err::symlink_metadata(&path)?.is_dir() {
            open_folders(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let gone = [
            "blobs/sha256/.tmp-a",
            "images/.tmp-b",
            "wheels/00/.download-c",
            ".run-d/upper/x",
            "snapshots/root/11.partial/x",
            "git/aa/.clone-g/x",
            "sandbox/.sandbox-h/x",
        ];
        let kept = [
            "blobs/sha256/22",
            "wheels/00/a.whl",
            "uv/.tmp-e",
            "snapshots/root/33/.tmp-f",
            "snapshots/root/44.partial/x",
            "git/aa/bb/.build-tools/x",
            "sandbox/.sandbox-i/x",
        ];
        for name in gone.iter().chain(&kept) {
            let path = path(name);
            fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs_err::write(path, "x").expect("a file");
        }
        #[cfg(unix)]
        fs_err::set_permissions(
            path(".run-d/upper"),
            std::os::unix::fs::PermissionsExt::from_mode(0o000),
        )
        .expect("a mode");
        let lock = fs_err::File::create(path("snapshots/root/44.lock")).expect("a lock");
        lock.file().lock().expect("a lock");
        let held = fs_err::File::open(path("sandbox/.sandbox-i")).expect("a folder");
        held.file().lock_shared().expect("a lock");
        assert_eq!(sweep(folder.path()).expect("a sweep"), gone.len());
        assert!(gone.iter().all(|name| !path(name).exists()));
        assert!(kept.iter().all(|name| path(name).exists()));
        assert_eq!(sweep(&path("none")).expect("a sweep"), 0);
    }
}
