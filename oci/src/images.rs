//! The local image store: names for images whose blobs are here.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use serde::{Deserialize, Serialize};

use crate::cache::LayerCache;
use crate::image::{Descriptor, reachable};
use crate::leftovers;
use crate::lock::{BuildLock, PruneLock};
use crate::store::{BlobStore, write_atomically};
use crate::unused::{self, Bounds};

/// Images by name, one small file each, beside their blobs.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
    blobs: BlobStore,
    layers: LayerCache,
    lock: PathBuf,
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

/// What [`ImageStore::prune`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Younger blobs stay, whoever they belong to.
    pub grace: Duration,
    /// Forget the images first.
    pub images: bool,
    /// Also forget what is known of layers whose blobs no image has.
    pub layers: bool,
    /// What else is in the cache goes when it was not used for that long.
    pub unused: Duration,
    /// And the longest unused first, until that many bytes of it are left.
    pub size: Option<u64>,
}

impl Default for Prune {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(1),
            images: false,
            layers: false,
            unused: Duration::from_hours(720),
            size: None,
        }
    }
}

/// What [`ImageStore::prune`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many blobs and leftovers.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many records of layers.
    pub layers: usize,
    /// How many downloads, root file systems and the like.
    pub others: usize,
    /// How many unfinished files and folders of processes that were killed.
    pub leftovers: usize,
}

impl ImageStore {
    /// The store below a cache folder: `images`, `blobs` and the layer cache, `layers`.
    pub fn open(cache_dir: &Path) -> Self {
        Self {
            root: cache_dir.join("images"),
            blobs: BlobStore::open(cache_dir.join("blobs")),
            layers: LayerCache::open(cache_dir.join("layers")),
            lock: cache_dir.join("images.lock"),
        }
    }

    /// The blobs of all images.
    pub const fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// The layers made before.
    pub const fn layers(&self) -> &LayerCache {
        &self.layers
    }

    /// Keeps [`ImageStore::prune`] away, from the first look for a blob until the image has its name. Blocks
    /// the thread while somebody prunes.
    pub fn lock_shared(&self) -> io::Result<BuildLock> {
        BuildLock::acquire(&self.lock)
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

    /// Removes blobs that no image has, and what killed processes left. What is known of layers stays, within
    /// bounds, so that those which a registry has are not made again. `None` says that somebody builds, and
    /// nothing was removed.
    pub fn prune(&self, prune: Prune) -> io::Result<Option<Pruned>> {
        let Some(_lock) = PruneLock::try_acquire(&self.lock)? else {
            return Ok(None);
        };
        if prune.images {
            for record in self.list()? {
                self.remove(&record.reference)?;
            }
        }
        let mut pruned = Pruned::default();
        let kept = self.reachable()?;
        pruned.layers = self.layers.trim()?;
        if prune.layers {
            for (key, layer) in self.layers.entries() {
                if !kept.contains(&layer.digest) {
                    self.layers.remove(&key)?;
                    pruned.layers += 1;
                }
            }
        }
        let kept: HashSet<_> = kept.iter().map(Digest::hex).collect();
        let oldest = SystemTime::now().checked_sub(prune.grace);
        for path in self.blobs.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let metadata = fs_err::symlink_metadata(&path)?;
            let is_old =
                oldest.is_some_and(|oldest| metadata.modified().is_ok_and(|at| at <= oldest));
            if kept.contains(name.as_ref()) || !is_old {
                continue;
            }
            fs_err::remove_file(&path)?;
            pruned.blobs += 1;
            pruned.bytes += metadata.len();
        }
        // Nobody builds: what has no name yet will not get one.
        let cache = self.root.parent().unwrap_or(&self.root);
        pruned.leftovers = leftovers::sweep(cache)?;
        // Of images that are gone, nobody asks what they were made of.
        for path in leftovers::children(&cache.join("provenance"))? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if !kept.contains(name.as_ref()) {
                leftovers::remove(&path)?;
                pruned.others += 1;
            }
        }
        let bounds = Bounds {
            unused: prune.unused,
            size: prune.size,
        };
        let (others, bytes) = unused::trim(cache, bounds)?;
        pruned.others = others;
        pruned.bytes += bytes;
        Ok(Some(pruned))
    }

    fn reachable(&self) -> io::Result<HashSet<Digest>> {
        let mut kept = HashSet::new();
        for record in self.list()? {
            // An image that cannot be read cannot be used: its blobs may go. A disk that fails is another
            // matter.
            match reachable(&self.blobs, &record.descriptor) {
                Ok(blobs) => kept.extend(blobs.into_iter().map(|blob| blob.digest)),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound
                            | io::ErrorKind::InvalidData
                            | io::ErrorKind::UnexpectedEof
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    fn path(&self, reference: &str) -> PathBuf {
        self.root
            .join(format!("{}.json", Digest::of(reference).hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Layer;
    use crate::image::tests::stored;

    fn record(store: &ImageStore, content: &str) -> (ImageRecord, Layer) {
        let image = stored(store.blobs(), content);
        let descriptor = image.write(store.blobs()).expect("an image");
        let record = ImageRecord {
            reference: format!("{content}:1"),
            descriptor,
            platforms: vec![image.platform],
            size: image.layers[0].size,
            created: 1,
            builder: "native".to_owned(),
        };
        (record, image.layers[0].clone())
    }

    const NOW: Prune = Prune {
        grace: Duration::ZERO,
        images: false,
        layers: false,
        unused: Duration::MAX,
        size: None,
    };

    #[test]
    fn an_image_is_found_while_it_is_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ImageStore::open(folder.path());
        assert_eq!(store.list().expect("a list"), []);
        let (entry, layer) = record(&store, "app");
        assert_eq!(store.find("app:1").expect("an answer"), None);
        store.tag(&entry).expect("a name");
        assert_eq!(store.find("app:1").expect("an answer"), Some(entry.clone()));
        assert_eq!(store.list().expect("a list"), [entry]);
        fs_err::remove_file(store.blobs().path(&layer.digest)).expect("a blob less");
        assert_eq!(store.find("app:1").expect("an answer"), None);
        assert!(store.remove("app:1").expect("an answer"));
        assert!(!store.remove("app:1").expect("an answer"));
    }

    #[test]
    fn a_damaged_record_counts_as_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ImageStore::open(folder.path());
        let (entry, _) = record(&store, "app");
        store.tag(&entry).expect("a name");
        fs_err::write(store.path("app:1"), "{").expect("damage");
        assert_eq!(store.find("app:1").expect("an answer"), None);
        assert_eq!(store.list().expect("a list"), []);
    }

    #[test]
    fn prune_keeps_images_and_what_is_known_of_layers() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ImageStore::open(folder.path());
        let (kept, _) = record(&store, "kept");
        store.tag(&kept).expect("a name");
        let (_, orphan) = record(&store, "orphan");
        let cached = stored(store.blobs(), "cached").layers.remove(0);
        store
            .layers()
            .put(&Digest::of("key"), &cached)
            .expect("an entry");
        let leftover = folder.path().join("blobs/sha256/.tmp-x");
        fs_err::write(&leftover, "x").expect("a leftover");

        let young = store.prune(Prune::default()).expect("a prune");
        let leftovers = Pruned {
            leftovers: 1,
            ..Pruned::default()
        };
        assert_eq!(young, Some(leftovers));
        let pruned = store.prune(NOW).expect("a prune").expect("nobody builds");
        assert_eq!(pruned.blobs, 4, "two layers, configuration and manifest");
        let contains = |digest| store.blobs().contains(digest).expect("an answer");
        assert_eq!(contains(&orphan.digest), None);
        assert!(!leftover.exists());
        assert_eq!(contains(&cached.digest), None);
        assert_eq!(store.layers().get(&Digest::of("key")), Some(cached));

        let all = Prune {
            layers: true,
            ..NOW
        };
        let pruned = store.prune(all).expect("a prune").expect("nobody builds");
        assert_eq!((pruned.blobs, pruned.layers), (0, 1));
        assert!(store.find("kept:1").expect("an answer").is_some());
    }

    #[test]
    fn nothing_is_pruned_while_somebody_builds() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ImageStore::open(folder.path());
        let (named, _) = record(&store, "named");
        store.tag(&named).expect("a name");
        let all = Prune {
            images: true,
            ..NOW
        };
        let locks = [(); 2].map(|()| store.lock_shared().expect("a lock"));
        assert_eq!(store.prune(all).expect("a prune"), None);
        assert_eq!(store.list().expect("a list"), [named]);
        drop(locks);
        let pruned = store.prune(all).expect("a prune");
        assert_eq!(pruned.map(|pruned| pruned.blobs), Some(3));
        assert_eq!(store.list().expect("a list"), []);
    }
}
