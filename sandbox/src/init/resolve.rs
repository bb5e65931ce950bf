//! Paths inside the new root file system, resolved as a process in it would, made where they are missing.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

/// How many links one path may lead through, as the kernel has it.
const LINKS: usize = 40;

/// What stands at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

impl Kind {
    /// The kind of the host's file or folder at `path`.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        Ok(if fs_err::metadata(path)?.is_dir() {
            Self::Directory
        } else {
            Self::File
        })
    }
}

/// Opens what is at `path` below `root`, as a place and not for reading.
pub(super) fn open(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(
        root,
        inside(path),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens what is at `path` below `root`. What is missing is made, an empty file or folders, and added to
/// `made`, outermost first.
pub(super) fn open_or_make(
    root: impl AsFd,
    path: &Path,
    kind: Kind,
    made: &mut Vec<PathBuf>,
) -> rustix::io::Result<OwnedFd> {
    let root = root.as_fd();
    match open(root, path) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    let mut pending: Vec<OsString> = names(path);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match statat(root, &next, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(root, &next, Vec::new())?.into_bytes();
                let target = PathBuf::from(OsString::from_vec(target));
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                pending.extend(names(&target));
            }
            Ok(_) => at = next,
            Err(Errno::NOENT) => {
                make(root, &next, kind, pending.is_empty())?;
                made.push(next.clone());
                at = next;
            }
            Err(errno) => return Err(errno),
        }
    }
    open(root, &at)
}

/// Makes one missing name: a folder on the way, `kind` at the end.
fn make(root: impl AsFd, path: &Path, kind: Kind, last: bool) -> rustix::io::Result<()> {
    if last && kind == Kind::File {
        let mode = Mode::from_raw_mode(0o644);
        mknodat(root, path, FileType::RegularFile, mode, 0)
    } else {
        mkdirat(root, path, Mode::from_raw_mode(0o755))
    }
}

/// The names of a path, the last first.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}

/// A path as one below a root, where the root itself is `.`.
fn inside(path: &Path) -> &OsStr {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return OsStr::new(".");
    }
    OsStr::from_bytes(bytes)
}
