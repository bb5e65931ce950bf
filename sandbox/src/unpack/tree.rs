//! Writing entries below one folder, without ever following a link.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, linkat, makedev, mkdirat, mknodat, open, openat, openat2, setxattr, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::refuse;
use crate::error::Error;
use crate::job::Tier;
use crate::owner::{self, Owner};
use imagespec_oci::layer::{EntryKind as Kind, LayerEntry as Entry};

/// The longest path and target, in bytes.
const PATH: usize = 4095;
const CAPABILITY: &str = "security.capability";

/// The folder a layer is unpacked into.
pub(super) struct Tree {
    root: OwnedFd,
    tier: Tier,
    /// Mode and time of folders, set when nothing is written into them any more.
    folders: BTreeMap<Vec<u8>, (u32, i64)>,
    /// The folder that was written into last.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    pub(super) fn open(dest: &Path, tier: Tier) -> Result<Self, Error> {
        let root = open(
            dest,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)?;
        let folders = BTreeMap::from([(Vec::new(), (0o755, 0))]);
        Ok(Self {
            root,
            tier,
            folders,
            parent: None,
        })
    }

    /// Adds one entry, with its content if it is a file.
    pub(super) fn add(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), Error> {
        let path = normal(&entry.path)?;
        let Some(name) = last(&path) else {
            if entry.kind != Kind::Directory {
                return Err(refuse("a layer cannot replace its root", &entry.path));
            }
            self.folders.insert(path, (entry.mode, entry.mtime));
            return Ok(self.dress(&self.root, b".", entry)?);
        };
        let parent = self.parent_of(&path)?;
        if name == b".wh..wh..opq" {
            return Ok(self.make_opaque(&parent)?);
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.white_out(&parent, hidden, &entry.path);
        }
        let replaced = self.clear(&parent, name, entry)?;
        self.write(&parent, name, entry, content)
            .map_err(|error| described(error, &path))?;
        if entry.kind == Kind::Directory {
            self.folders.insert(path.clone(), (entry.mode, entry.mtime));
            if replaced == Replaced::Whiteout {
                let folder = beneath(&parent, name).map_err(io::Error::from)?;
                self.make_opaque(&folder)?;
            }
        }
        Ok(())
    }

    /// Gives folders their modes and times, the innermost first.
    pub(super) fn finish(self) -> Result<(), Error> {
        for (path, (mode, mtime)) in self.folders.iter().rev() {
            let (parent, name) = match last(path) {
                None => (None, &b"."[..]),
                Some(name) => {
                    let folder = beneath(&self.root, parent(path)).map_err(io::Error::from)?;
                    (Some(folder), name)
                }
            };
            let at = parent.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let name = OsStr::from_bytes(name);
            utimensat(at, name, &times(*mtime), AtFlags::SYMLINK_NOFOLLOW)
                .and_then(|()| chmodat(at, name, Mode::from_raw_mode(*mode), AtFlags::empty()))
                .map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Opens the folder that `path` is in, making what is missing.
    fn parent_of(&mut self, path: &[u8]) -> Result<OwnedFd, Error> {
        let folder = parent(path);
        if let Some((known, descriptor)) = &self.parent
            && known == folder
        {
            return Ok(descriptor.try_clone()?);
        }
        let descriptor = match beneath(&self.root, folder) {
            Err(Errno::NOENT) => self.make_folders(folder),
            opened => opened,
        };
        let descriptor = descriptor.map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => refuse("an entry lies behind a link or a file", path),
            errno => io::Error::from(errno).into(),
        })?;
        self.parent = Some((folder.to_vec(), descriptor.try_clone()?));
        Ok(descriptor)
    }

    /// Makes a folder and those above it, as far as they are missing.
    fn make_folders(&mut self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in ends.map(|(end, _)| end).chain([path.len()]) {
            let folder = &path[..end];
            let above = beneath(&self.root, parent(folder))?;
            let name = OsStr::from_bytes(last(folder).unwrap_or(b"."));
            match mkdirat(&above, name, Mode::RWXU) {
                Ok(()) => {
                    self.folders.insert(folder.to_vec(), (0o755, 0));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        beneath(&self.root, path)
    }

    /// Makes room for an entry.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<Replaced, Error> {
        let name = OsStr::from_bytes(name);
        let status = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Replaced::Nothing),
            status => status.map_err(io::Error::from)?,
        };
        let replaced = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory if entry.kind == Kind::Directory => return Ok(Replaced::Nothing),
            FileType::Directory => return Err(refuse("an entry replaces a folder", &entry.path)),
            FileType::CharacterDevice if status.st_rdev == 0 => Replaced::Whiteout,
            _ => Replaced::File,
        };
        unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)?;
        self.parent = None;
        Ok(replaced)
    }

    /// Makes an entry where nothing is, or a folder is for a folder.
    fn write(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<(), Error> {
        let at = OsStr::from_bytes(name);
        let special =
            |kind, device: Dev| mknodat(parent, at, kind, Mode::RUSR | Mode::WUSR, device);
        match entry.kind {
            Kind::File => return self.write_file(parent, name, entry, content),
            Kind::Hardlink => return self.link(parent, at, entry),
            Kind::Directory => match mkdirat(parent, at, Mode::RWXU) {
                Err(Errno::EXIST) => Ok(()),
                made => made,
            },
            Kind::Symlink if entry.target.is_empty() || entry.target.len() > PATH => {
                return Err(refuse("a link leads nowhere", &entry.path));
            }
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.target), parent, at),
            Kind::Fifo => special(FileType::Fifo, 0),
            // To an overlay, a device of these numbers means something else.
            Kind::Character(0, 0) => return Ok(()),
            Kind::Character(..) | Kind::Block(..) if self.tier == Tier::SingleId => return Ok(()),
            Kind::Character(major, minor) => {
                special(FileType::CharacterDevice, makedev(major, minor))
            }
            Kind::Block(major, minor) => special(FileType::BlockDevice, makedev(major, minor)),
        }
        .map_err(io::Error::from)?;
        Ok(self.dress(parent, name, entry)?)
    }

    fn write_file(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<(), Error> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(
            parent,
            OsStr::from_bytes(name),
            flags,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(io::Error::from)?;
        io::copy(content, &mut std::fs::File::from(file))?;
        Ok(self.dress(parent, name, entry)?)
    }

    /// Gives a file of this layer a further name.
    fn link(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Error> {
        let target = normal(&entry.target)?;
        let missing = |_| refuse("a hard link leads to nothing in its layer", &entry.path);
        let folder = beneath(&self.root, self::parent(&target)).map_err(missing)?;
        let file = OsStr::from_bytes(last(&target).unwrap_or(b"."));
        linkat(&folder, file, parent, name, AtFlags::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::PERM => missing(errno),
            errno => io::Error::from(errno).into(),
        })
    }

    /// Gives an entry its owner, attributes, time and mode; folders get the latter two at the end.
    fn dress(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        let at = OsStr::from_bytes(name);
        if self.tier == Tier::Root {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(parent, at, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if matches!(entry.kind, Kind::File | Kind::Directory) {
            self.set_attributes(parent, at, entry)?;
        }
        if entry.kind == Kind::Directory {
            return Ok(());
        }
        utimensat(parent, at, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            chmodat(
                parent,
                at,
                Mode::from_raw_mode(entry.mode),
                AtFlags::empty(),
            )?;
        }
        Ok(())
    }

    /// Sets those extended attributes that mean the same everywhere, and the owner where it is one of them.
    fn set_attributes(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let owner = Owner {
            uid: entry.uid,
            gid: entry.gid,
        };
        let recorded = self.tier == Tier::SingleId && owner != Owner::default();
        if entry.xattrs.is_empty() && !recorded {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        if recorded {
            let value = owner.encode();
            setxattr(
                &link,
                owner::ATTRIBUTE,
                value.as_bytes(),
                XattrFlags::empty(),
            )?;
        }
        for (attribute, value) in &entry.xattrs {
            let attribute = match (attribute.as_str(), self.tier) {
                (CAPABILITY, Tier::SingleId) => owner::CAPABILITY,
                (CAPABILITY, Tier::Root) => CAPABILITY,
                (other, _) if is_ours(other) || !other.starts_with("user.") => continue,
                (other, _) => other,
            };
            match setxattr(&link, attribute, value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Says that a name of the layers below is gone, unless this layer has it itself.
    fn white_out(&self, parent: &OwnedFd, name: &[u8], shown: &[u8]) -> Result<(), Error> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(refuse("a deletion names nothing", shown));
        }
        let at = OsStr::from_bytes(name);
        match mknodat(parent, at, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {}
            made => return Ok(made.map_err(io::Error::from)?),
        }
        match beneath(parent, name) {
            Ok(folder) => Ok(self.make_opaque(&folder)?),
            Err(_) => Ok(()),
        }
    }

    /// Says that nothing of the layers below is in a folder.
    fn make_opaque(&self, folder: &OwnedFd) -> io::Result<()> {
        let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let attribute = format!("{}opaque", self.tier.overlay_prefix());
        setxattr(link, attribute, b"y", XattrFlags::empty())?;
        Ok(())
    }
}

/// What an entry took the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Nothing,
    File,
    Whiteout,
}

/// Whether an attribute means something to the sandbox or the overlay, which a layer has no say in.
fn is_ours(attribute: &str) -> bool {
    attribute.starts_with("user.overlay.") || attribute.starts_with("user.imagespec.")
}

/// Opens a folder below `root`, as a place, through folders only.
fn beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    openat2(
        root,
        OsStr::from_bytes(path),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// A path of an archive as one relative to the root, without `.`; empty for the root.
fn normal(path: &[u8]) -> Result<Vec<u8>, Error> {
    if path.is_empty() || path.len() > PATH || path.contains(&0) {
        return Err(refuse("an entry has an impossible path", path));
    }
    let mut normal = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(refuse("an entry leads out of its layer", path)),
            name => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(name);
            }
        }
    }
    Ok(normal)
}

/// The folder that a normal path is in.
fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// The last name of a normal path; `None` of the root.
fn last(path: &[u8]) -> Option<&[u8]> {
    path.rsplit(|byte| *byte == b'/')
        .next()
        .filter(|name| !name.is_empty())
}

/// Access and modification times of a number of seconds since 1970.
fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Names the entry that an error is about, where it does not say so.
fn described(error: Error, path: &[u8]) -> Error {
    match error {
        Error::Io(source) => {
            let path = String::from_utf8_lossy(path).into_owned();
            let kind = source.kind();
            Error::Io(io::Error::new(kind, Unpacking { path, source }))
        }
        error => error,
    }
}

/// An input or output error of one entry.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack `{path}`")]
struct Unpacking {
    path: String,
    source: io::Error,
}
