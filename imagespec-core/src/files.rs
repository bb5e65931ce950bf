//! The files a spec names: walked, digested once, and opened again by whoever builds.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use crate::context::ContextFiles;
use crate::digest::Digest;
use crate::ignore::{Ignore, Verdict};
use crate::plan::ContextEntry;

/// The most files a source folder may have.
const MOST: usize = 2_000_000;

/// A file or link found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path relative to the folder that was walked, separated by `/`.
    pub path: String,
    /// Where it is.
    pub host: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File { executable: bool },
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
            let is_folder = entry.file_type()?.is_dir();
            if self
                .ignore
                .as_ref()
                .is_some_and(|ignore| ignore.verdict(&path, is_folder) == Verdict::Skip)
            {
                continue;
            }
            if is_folder {
                self.folder(&path)?;
            } else if let Some(found) = found(path, entry.path())? {
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

/// A file or link at `host`, known as `path`.
pub fn found(path: String, host: PathBuf) -> io::Result<Option<Found>> {
    let metadata = fs_err::symlink_metadata(&host)?;
    let kind = if metadata.is_symlink() {
        if !host.exists() {
            return Ok(None);
        }
        let target = fs_err::read_link(&host)?.into_os_string().into_string();
        Kind::Symlink {
            target: target.map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the target of a link is not UTF-8",
                )
            })?,
        }
    } else if metadata.is_file() {
        #[cfg(unix)]
        let executable =
            std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
        #[cfg(not(unix))]
        let executable = false;
        Kind::File { executable }
    } else {
        return Ok(None);
    };
    Ok(Some(Found { path, host, kind }))
}

/// What was found, as entries of a build context in the same order. Files are digested in parallel.
pub fn digest(found: &[Found]) -> io::Result<Vec<ContextEntry>> {
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
            let entry = entry(found)?;
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

fn entry(found: &Found) -> io::Result<ContextEntry> {
    Ok(match &found.kind {
        Kind::File { executable } => {
            let (digest, size) = Digest::of_reader(&mut fs_err::File::open(&found.host)?)?;
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

/// The files of a plan on this machine, by their path in the build context.
#[derive(Default, Clone)]
pub struct ResolvedFiles(BTreeMap<String, Content>);

#[derive(Clone)]
enum Content {
    Memory(Vec<u8>),
    Disk(PathBuf, Digest),
}

impl ResolvedFiles {
    /// Adds a file that is in memory.
    pub fn insert_bytes(&mut self, path: String, bytes: Vec<u8>) {
        self.0.insert(path, Content::Memory(bytes));
    }

    /// Adds a file on disk, of a digest that is checked when it is read again.
    pub fn insert_file(&mut self, path: String, host: PathBuf, digest: Digest) {
        self.0.insert(path, Content::Disk(host, digest));
    }
}

impl fmt::Debug for ResolvedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl ContextFiles for ResolvedFiles {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        match self.0.get(path) {
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the build context has no `{path}`"),
            )),
            Some(Content::Memory(bytes)) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Some(Content::Disk(host, digest)) => {
                let file = fs_err::File::open(host)?;
                Ok(Box::new(Checked {
                    file,
                    hash: Some(Sha256::new()),
                    digest: *digest,
                }))
            }
        }
    }
}

/// A file that must still have the digest it had when the plan was made.
struct Checked {
    file: fs_err::File,
    hash: Option<Sha256>,
    digest: Digest,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        let ended = count == 0 && !buffer.is_empty();
        if let Some(hash) = ended.then(|| self.hash.take()).flatten()
            && Digest::from_bytes(hash.finalize().into()) != self.digest
        {
            let message = format!(
                "the file changed while the image was built: `{}`",
                self.file.path().display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(count)
    }
}
