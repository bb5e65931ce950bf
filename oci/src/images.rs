//! The local image store: names for images whose blobs are here.

use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use serde::{Deserialize, Serialize};

use crate::image::{Descriptor, reachable};
use crate::store::{BlobStore, write_atomically};

/// Images by name, one small file each, beside their blobs.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
    blobs: BlobStore,
}

/// A named image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `[registry/]name:tag`.
    pub reference: String,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// Its platforms.
    pub platforms: Vec<Platform>,
    /// Compressed bytes of its layers.
    pub size: u64,
    /// When it was named, in seconds since 1970.
    pub created: u64,
    /// The builder that made it.
    pub builder: String,
}

impl ImageStore {
    /// The store below a cache folder: `images` and `blobs`.
    pub fn open(cache_dir: &Path) -> Self {
        Self {
            root: cache_dir.join("images"),
            blobs: BlobStore::open(cache_dir.join("blobs")),
        }
    }

    /// The blobs of all images.
    pub const fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Names an image.
    pub fn tag(&self, record: &ImageRecord) -> io::Result<()> {
        write_atomically(
            &self.path(&record.reference),
            &serde_json::to_vec_pretty(record)?,
        )
    }

    /// The image of a name, if all its blobs are here.
    pub fn find(&self, reference: &str) -> io::Result<Option<ImageRecord>> {
        let bytes = match fs_err::read(self.path(reference)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(record) = serde_json::from_slice::<ImageRecord>(&bytes) else {
            return Ok(None);
        };
        let Ok(blobs) = reachable(&self.blobs, &record.descriptor) else {
            return Ok(None);
        };
        for blob in blobs {
            if self.blobs.contains(&blob.digest)? != Some(blob.size) {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// All named images, by name.
    pub fn list(&self) -> io::Result<Vec<ImageRecord>> {
        let entries = match fs_err::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let read = |path| serde_json::from_slice(&fs_err::read(path).ok()?).ok();
        let mut records: Vec<ImageRecord> = entries
            .filter_map(|entry| read(entry.ok()?.path()))
            .collect();
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    /// Forgets a name. `Ok(false)` says that there was none.
    pub fn remove(&self, reference: &str) -> io::Result<bool> {
        match fs_err::remove_file(self.path(reference)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path(&self, reference: &str) -> PathBuf {
        self.root
            .join(format!("{}.json", Digest::of(reference).hex()))
    }
}
