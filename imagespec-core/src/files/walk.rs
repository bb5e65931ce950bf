//! Which files are below a folder.

use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use crate::ignore::{Ignore, Verdict};

/// The most files a source folder may have.
const MOST: usize = 2_000_000;

/// A file or link found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path relative to the folder that was walked, separated by `/`.
    pub path: String,
    /// Where it is.
    pub host: PathBuf,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Symlink { target: String },
    Directory,
}

/// The files below a folder that the rules leave, sorted by path; with `ignore` absent all of them, and empty
/// folders too. Sockets, devices and links that lead nowhere are left out.
pub fn walk(root: &Path, ignore: Option<&mut Ignore>) -> io::Result<Vec<Found>> {
    let mut walk = Walk {
        root,
        ignore,
        found: Vec::new(),
    };
    walk.folder("")?;
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    ignore: Option<&'a mut Ignore>,
    found: Vec<Found>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        if let (Some(ignore), false) = (&mut self.ignore, folder.is_empty()) {
            ignore.enter(folder);
        }
        let mut empty = true;
        for entry in fs_err::read_dir(self.root.join(folder))? {
            let entry = entry?;
            empty = false;
            let name = entry.file_name().into_string().map_err(|name| {
                let message = format!(
                    "the name of a file is not UTF-8: `{}`",
                    self.root.join(folder).join(name).display()
                );
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?;
            let path = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            let kind = entry.file_type()?;
            let is_folder = kind.is_dir();
            if self
                .ignore
                .as_ref()
                .is_some_and(|ignore| ignore.verdict(&path, is_folder) == Verdict::Skip)
            {
                continue;
            }
            if is_folder {
                self.folder(&path)?;
            } else if let Some(found) = of_type(path, entry.path(), kind)? {
                self.found.push(found);
            }
            if self.found.len() > MOST {
                return Err(io::Error::other(format!(
                    "more than {MOST} files below `{}`",
                    self.root.display()
                )));
            }
        }
        if empty && self.ignore.is_none() && !folder.is_empty() {
            let host = self.root.join(folder);
            self.found.push(Found {
                path: folder.to_owned(),
                host,
                kind: Kind::Directory,
            });
        }
        Ok(())
    }
}

/// A file or link at `host`, known as `path`; none for a socket, a device, or a link that leads nowhere.
pub fn found(path: String, host: PathBuf) -> io::Result<Option<Found>> {
    let kind = fs_err::symlink_metadata(&host)?.file_type();
    of_type(path, host, kind)
}

fn of_type(path: String, host: PathBuf, kind: FileType) -> io::Result<Option<Found>> {
    let kind = if kind.is_symlink() {
        if !host.exists() {
            return Ok(None);
        }
        let target = fs_err::read_link(&host)?.into_os_string().into_string();
        let target = target.map_err(|_| {
            let message = format!("the target of a link is not UTF-8: `{}`", host.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        Kind::Symlink { target }
    } else if kind.is_file() {
        Kind::File
    } else {
        return Ok(None);
    };
    Ok(Some(Found { path, host, kind }))
}
