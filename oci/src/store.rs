//! Blobs by their digest, in a folder that several processes share.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use imagespec_core::digest::Digest;
use tempfile::NamedTempFile;

/// A folder of blobs: `sha256/<hex>`. A blob has its name only when it is complete and on disk.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
}

impl BlobStore {
    /// The store in a folder, which is made when the first blob is written.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("sha256").join(digest.hex())
    }

    /// The length of a blob in bytes, if the store has it.
    pub fn contains(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match fs_err::metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a blob. Its content is trusted: whoever takes it out of the machine verifies it again.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// The whole of a small blob, at most `limit` bytes, verified.
    pub fn read(&self, digest: &Digest, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        if Digest::of(&bytes) == *digest {
            return Ok(bytes);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the blob is damaged: {digest}"),
        ))
    }

    /// Keeps a small blob.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if self.contains(&digest)? != Some(bytes.len() as u64) {
            let mut writer = self.writer()?;
            writer.write_all(bytes)?;
            writer.commit(&digest)?;
        }
        Ok(digest)
    }

    /// A blob in the making. Dropped without [`BlobWriter::commit`], it leaves nothing.
    pub fn writer(&self) -> io::Result<BlobWriter> {
        let folder = self.folder();
        fs_err::create_dir_all(&folder)?;
        let file = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempfile_in(&folder)?;
        Ok(BlobWriter {
            store: self.clone(),
            file: io::BufWriter::with_capacity(256 * 1024, file),
        })
    }

    /// Where blobs are in the making.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join("sha256")
    }

    /// Keeps a file as a blob, which it must be.
    pub(crate) fn adopt(&self, file: NamedTempFile, digest: &Digest) -> io::Result<()> {
        publish_as(file, &self.path(digest), BLOB_MODE)
    }

    /// Every file of the store: blobs, and those in the making.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        match fs_err::read_dir(self.folder()) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The digests of all blobs, with their length in bytes.
    pub fn list(&self) -> io::Result<Vec<(Digest, u64)>> {
        let entries = match fs_err::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut blobs = Vec::new();
        for entry in entries {
            let entry = entry?;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|name| format!("sha256:{name}").parse().ok());
            if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                blobs.push((digest, metadata.len()));
            }
        }
        blobs.sort_unstable();
        Ok(blobs)
    }
}

/// A blob that is being written. It does not digest: its writer knows what it wrote.
#[derive(Debug)]
pub struct BlobWriter {
    store: BlobStore,
    file: io::BufWriter<NamedTempFile>,
}

impl BlobWriter {
    /// Puts the blob on disk under its digest, which must be right, and returns its length in bytes.
    pub fn commit(self, digest: &Digest) -> io::Result<u64> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let size = file.as_file().metadata()?.len();
        publish_as(file, &self.store.path(digest), BLOB_MODE)?;
        Ok(size)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a small file as a whole: either the old content is there or the new.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    publish(file, path)
}

/// Gives a temporary file its name, once its content is on disk.
pub fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    publish_as(file, path, 0o644)
}

fn publish_as(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    set_mode(file.path(), mode)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Read-only, and readable for everyone: layouts are links to it.
const BLOB_MODE: u32 = 0o444;

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path().join("blobs"));
        assert!(store.list().expect("a list").is_empty());
        let digest = store.put(b"hello").expect("a blob");
        assert_eq!(store.contains(&digest).expect("an answer"), Some(5));
        assert_eq!(store.read(&digest, 100).expect("the blob"), b"hello");
        let mut dropped = store.writer().expect("a writer");
        dropped.write_all(b"half").expect("a write");
        drop(dropped);
        assert_eq!(store.list().expect("a list"), [(digest, 5)]);
        assert_eq!(
            fs_err::read_dir(folder.path().join("blobs/sha256"))
                .expect("a folder")
                .count(),
            1
        );
    }

    #[test]
    fn a_damaged_blob_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let digest = store.put(b"hello").expect("a blob");
        fs_err::remove_file(store.path(&digest)).expect("damage");
        fs_err::write(store.path(&digest), b"jello").expect("damage");
        assert_eq!(
            store.read(&digest, 100).expect_err("damage").kind(),
            io::ErrorKind::InvalidData
        );
    }
}
