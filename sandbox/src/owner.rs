//! Owners on the side: what a file's owner is where the file system knows only one.
//!
//! Regular files and folders carry `user.imagespec.owner`, `UID:GID` in decimal; it follows them through
//! renames, hard links and the overlay's copies. Links and special files take no such attribute, so they are
//! in a table beside the upper directory: records `INODE UID:GID PATH NUL`, of which the last one holds.
//!
//! To the command every file seems to be root's. Programs that replace a file (`useradd` replaces
//! `/etc/shadow`, `sed -i` anything) give the new one the owner that the old one seems to have; so a new file
//! that is given to root has [`SEEMING`] instead, and its owner is that of what it replaces.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The extended attribute that holds a file's owner.
pub(crate) const ATTRIBUTE: &str = "user.imagespec.owner";
/// The attribute's value for a new file that was given to the owner which every file seems to have.
pub(crate) const SEEMING: &str = "?";
/// The extended attribute that holds a file's capabilities, in the form `security.capability` has on disk,
/// where that attribute itself may not be set.
pub(crate) const CAPABILITY: &str = "user.imagespec.capability";

/// A file's owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// This owner as an attribute's value.
    pub(crate) fn encode(self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }

    /// The owner that an attribute's value names.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
        Some(Self {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    }
}

/// The file beside `upper` that holds its table.
pub(crate) fn table_of(upper: &Path) -> PathBuf {
    beside(upper, ".owners")
}

/// The file beside `upper` that names the layers below it, the lowest first, each with a NUL at its end.
pub(crate) fn layers_of(upper: &Path) -> PathBuf {
    beside(upper, ".layers")
}

fn beside(upper: &Path, suffix: &str) -> PathBuf {
    let mut name = upper.file_name().map(OsString::from).unwrap_or_default();
    name.push(suffix);
    upper.with_file_name(name)
}

/// Notes the layers below `upper`.
pub(crate) fn write_layers(upper: &Path, layers: &[PathBuf]) -> io::Result<()> {
    let mut list = Vec::new();
    for layer in layers {
        list.extend_from_slice(layer.as_os_str().as_bytes());
        list.push(0);
    }
    fs_err::write(layers_of(upper), list)
}

/// The layers below `upper`; none if they were never noted.
pub(crate) fn read_layers(upper: &Path) -> io::Result<Vec<PathBuf>> {
    let list = match fs_err::read(layers_of(upper)) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let layers = list.split(|byte| *byte == 0);
    Ok(layers
        .filter(|layer| !layer.is_empty())
        .map(|layer| PathBuf::from(OsString::from_vec(layer.to_vec())))
        .collect())
}

/// The owner recorded for the file at `path`, relative to the root, in the highest of `layers` that has it.
pub(crate) fn of_lower(layers: &[PathBuf], path: &Path) -> Option<Owner> {
    let file = layers.iter().rev().find_map(|layer| {
        let layer = rustix::fs::open(layer, PLACE, Mode::empty()).ok()?;
        openat2(
            layer,
            path,
            PLACE | OFlags::NOFOLLOW,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
        .ok()
    })?;
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut value = [0_u8; 32];
    let length = rustix::fs::getxattr(link, ATTRIBUTE, &mut value[..]).ok()?;
    Owner::decode(&value[..length])
}

/// Adds a record to the table `file`; `path` is absolute in the sandbox.
pub(crate) fn append(
    file: &mut impl Write,
    inode: u64,
    owner: Owner,
    path: &Path,
) -> io::Result<()> {
    let mut record = format!("{inode} {} ", owner.encode()).into_bytes();
    record.extend_from_slice(path.as_os_str().as_bytes());
    record.push(0);
    file.write_all(&record)
}

/// The table of one upper directory.
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_path: HashMap<PathBuf, Owner>,
    by_inode: HashMap<u64, Owner>,
}

impl Table {
    /// Reads a table; a missing one is empty, and a record cut short is ignored.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let bytes = match fs_err::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut table = Self::default();
        for record in bytes.split_inclusive(|byte| *byte == 0) {
            let Some(record) = record.strip_suffix(&[0]) else {
                break;
            };
            let mut fields = record.splitn(3, |byte| *byte == b' ');
            let (Some(inode), Some(owner), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let inode = std::str::from_utf8(inode).ok().and_then(|i| i.parse().ok());
            let (Some(inode), Some(owner)) = (inode, Owner::decode(owner)) else {
                continue;
            };
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            table.by_path.insert(path, owner);
            table.by_inode.insert(inode, owner);
        }
        Ok(table)
    }

    /// The owner of the file with `inode` at `path`, absolute in the sandbox. A file that was renamed since is
    /// known by its inode.
    pub(crate) fn get(&self, path: &Path, inode: u64) -> Option<Owner> {
        self.by_path
            .get(path)
            .or_else(|| self.by_inode.get(&inode))
            .copied()
    }
}
