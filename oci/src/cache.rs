//! What is known of layers made before: from what went into one to what came out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use imagespec_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::image::Descriptor;
use crate::layer::LayerInfo;
use crate::lock::KeyLock;
use crate::store::write_atomically;

/// How long a record stays that nobody asks for.
const KEPT: Duration = Duration::from_hours(4320);
/// The most records that stay.
const MOST: usize = 50_000;

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
    /// The layer as a manifest lists it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size)
    }

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
///
/// A record outlives its blob: it says which blob would come out, so that nobody has to make one that a registry
/// has already.
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

    /// Holds the making of the layer of `key` against everyone else, in this process or another, until it is
    /// dropped. Blocks the thread while somebody else holds it.
    pub fn lock(&self, key: &Digest) -> io::Result<KeyLock> {
        KeyLock::acquire(&self.root.join(format!("{}.lock", key.hex())))
    }

    /// Forgets the oldest records where there are too many, or nobody has made or confirmed one for half a
    /// year. Returns how many. Nobody may be building.
    pub fn trim(&self) -> io::Result<usize> {
        let mut aged: Vec<(SystemTime, PathBuf)> = Vec::new();
        let entries = match fs_err::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.path().extension().is_some_and(|end| end == "lock") {
                fs_err::remove_file(entry.path())?;
            } else {
                aged.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        aged.sort_by(|a, b| b.cmp(a));
        let oldest = SystemTime::now().checked_sub(KEPT);
        let mut forgotten = 0;
        for (index, (at, path)) in aged.iter().enumerate() {
            if index >= MOST || oldest.is_some_and(|oldest| *at < oldest) {
                fs_err::remove_file(path)?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
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

    #[test]
    fn old_records_are_forgotten_and_young_ones_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = LayerCache::open(folder.path());
        for name in ["old", "young"] {
            fs_err::write(cache.path(&Digest::of(name)), b"{}").expect("a record");
        }
        drop(cache.lock(&Digest::of("old")).expect("a lock"));
        let old = fs_err::File::options()
            .write(true)
            .open(cache.path(&Digest::of("old")))
            .expect("a record");
        let long_ago = SystemTime::now() - 2 * KEPT;
        old.file().set_modified(long_ago).expect("a time");
        assert_eq!(cache.trim().expect("a count"), 1);
        let left: Vec<_> = fs_err::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(left, [cache.path(&Digest::of("young"))]);
    }

    #[test]
    fn one_at_a_time_makes_a_layer() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = LayerCache::open(folder.path());
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _lock = cache.lock(&Digest::of("key")).expect("a lock");
                    let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(others, 0);
                });
            }
        });
    }
}
