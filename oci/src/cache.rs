//! What is known of layers made before: from what went into one to what came out.

use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::layer::LayerInfo;
use crate::store::write_atomically;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// Uncompressed bytes; 0 where nobody has counted them.
    pub uncompressed_size: u64,
    /// Media type.
    pub media_type: String,
    /// What it holds: `wheel numpy 2.2.6`.
    pub created_by: String,
}

impl Layer {
    /// A finished layer and what it holds.
    pub fn new(info: &LayerInfo, created_by: impl Into<String>) -> Self {
        Self {
            digest: info.digest,
            diff_id: info.diff_id,
            size: info.size,
            uncompressed_size: info.uncompressed_size,
            media_type: info.media_type.to_owned(),
            created_by: created_by.into(),
        }
    }
}

/// Layers by the digest of what they are made from, one small file each. A damaged file counts as absent.
#[derive(Debug, Clone)]
pub struct LayerCache {
    root: PathBuf,
}

impl LayerCache {
    /// The cache in a folder, which is made when the first layer is kept.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The layer made from `key`.
    pub fn get(&self, key: &Digest) -> Option<Layer> {
        serde_json::from_slice(&fs_err::read(self.path(key)).ok()?).ok()
    }

    /// Keeps what was made from `key`.
    pub fn put(&self, key: &Digest, layer: &Layer) -> io::Result<()> {
        write_atomically(&self.path(key), &serde_json::to_vec(layer)?)
    }

    /// All layers that are kept.
    pub fn list(&self) -> Vec<Layer> {
        self.entries().into_iter().map(|(_, layer)| layer).collect()
    }

    /// All layers that are kept, with what they are made from.
    pub fn entries(&self) -> Vec<(Digest, Layer)> {
        let Ok(entries) = fs_err::read_dir(&self.root) else {
            return Vec::new();
        };
        let key = |path: &Path| {
            let hex = path.file_name()?.to_str()?.strip_suffix(".json")?;
            format!("sha256:{hex}").parse().ok()
        };
        entries
            .filter_map(|entry| {
                let key = key(&entry.ok()?.path())?;
                Some((key, self.get(&key)?))
            })
            .collect()
    }

    /// Forgets what was made from `key`.
    pub fn remove(&self, key: &Digest) -> io::Result<()> {
        match fs_err::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.root.join(format!("{}.json", key.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_counts_as_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = LayerCache::open(folder.path());
        let key = Digest::of("key");
        let layer = Layer {
            digest: Digest::of("a"),
            diff_id: Digest::of("b"),
            size: 1,
            uncompressed_size: 2,
            media_type: "m".into(),
            created_by: "c".into(),
        };
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &layer).expect("an entry");
        assert_eq!(cache.get(&key), Some(layer.clone()));
        assert_eq!(cache.entries(), [(key, layer)]);
        fs_err::write(cache.path(&key), b"{").expect("damage");
        assert_eq!(cache.get(&key), None);
        assert_eq!(cache.entries(), []);
        cache.remove(&key).expect("an entry less");
        cache.remove(&key).expect("none to remove");
    }
}
