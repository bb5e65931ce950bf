//! The files of a plan, opened again by whoever builds.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::context::ContextFiles;
use crate::digest::Digest;

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

    /// Adds files on disk, each with a digest that is checked when it is read again.
    pub fn extend_files(&mut self, files: impl IntoIterator<Item = (String, PathBuf, Digest)>) {
        let content = |(path, host, digest)| (path, Content::Disk(host, digest));
        // Collecting what is sorted and merging it takes linear time, inserting it does not.
        self.0.append(&mut files.into_iter().map(content).collect());
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
