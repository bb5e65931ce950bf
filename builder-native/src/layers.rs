//! Layers in the store: what is known of them, and how they are written.

use std::io;

use imagespec_core::context::Compression;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_oci::cache::Layer;
use imagespec_oci::images::ImageStore;
use imagespec_oci::layer::{LayerWriter, contract_parents};
use imagespec_oci::lock::KeyLock;
use imagespec_oci::store::BlobWriter;

/// Fills a layer, on a thread that may block.
pub(crate) type Fill =
    Box<dyn FnOnce(&mut LayerWriter<BlobWriter>) -> Result<(), BuildError> + Send>;

/// Makes layers in a store, with one compression.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    store: ImageStore,
    compression: Compression,
    /// Ids of the user of images, where a base has others for it.
    owner: Option<(u32, u32)>,
}

impl Layers {
    pub(crate) fn new(store: &ImageStore, compression: Compression) -> Self {
        Self {
            store: store.clone(),
            compression,
            owner: None,
        }
    }

    /// Makes layers for a base whose user of images has these ids.
    pub(crate) fn owned_by(&self, owner: (u32, u32)) -> Self {
        Self {
            owner: Some(owner),
            ..self.clone()
        }
    }

    /// The key of a layer whose content depends on `content` alone.
    pub(crate) fn key(&self, content: &Digest) -> Digest {
        let mut hash = Framed::new("imagespec layer");
        hash.digest(content)
            .text(&format!("{:?}", self.compression));
        hash.finish()
    }

    /// What came out of `key` when it was made. Its blob may be gone.
    pub(crate) fn known(&self, key: &Digest) -> Option<Layer> {
        self.store.layers().get(key)
    }

    /// Whether the blob of a layer is here.
    pub(crate) fn has(&self, layer: &Layer) -> Result<bool, BuildError> {
        let found = self.store.blobs().contains(&layer.digest);
        let found = found.map_err(|error| store_error(&error))?;
        Ok(found == Some(layer.size))
    }

    /// Waits until nobody else makes the layer of `key`, here or in another process.
    pub(crate) async fn lock(&self, key: &Digest) -> Result<KeyLock, BuildError> {
        let (records, key) = (self.store.layers().clone(), *key);
        let lock = tokio::task::spawn_blocking(move || records.lock(&key)).await;
        lock.map_err(io::Error::other)
            .and_then(|lock| lock)
            .map_err(|error| store_error(&error))
    }

    /// Keeps what came out of `key`.
    pub(crate) fn keep(&self, key: &Digest, layer: &Layer) -> Result<(), BuildError> {
        let kept = self.store.layers().put(key, layer);
        kept.map_err(|error| store_error(&error))
    }

    /// Forgets what came out of `key`.
    pub(crate) fn forget(&self, key: &Digest) -> Result<(), BuildError> {
        let forgotten = self.store.layers().remove(key);
        forgotten.map_err(|error| store_error(&error))
    }

    /// Writes a layer, on a thread that may block. The blob appears only when it is complete.
    pub(crate) async fn write(&self, created_by: String, fill: Fill) -> Result<Layer, BuildError> {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || this.write_here(created_by, fill));
        written.await.unwrap_or_else(|error| {
            Err(BuildError::failed("writing a layer panicked").caused_by(&error))
        })
    }

    /// Writes a layer on this thread.
    pub(crate) fn write_here(
        &self,
        created_by: String,
        fill: impl FnOnce(&mut LayerWriter<BlobWriter>) -> Result<(), BuildError>,
    ) -> Result<Layer, BuildError> {
        let out = self
            .store
            .blobs()
            .writer()
            .map_err(|error| store_error(&error))?;
        let mut writer = LayerWriter::new(out, self.compression, contract_parents)?;
        if let Some((uid, gid)) = self.owner {
            writer.belongs_to(uid, gid);
        }
        fill(&mut writer)?;
        let (out, info) = writer.finish()?;
        out.commit(&info.digest)
            .map_err(|error| store_error(&error))?;
        Ok(Layer::new(&info, created_by))
    }
}

/// What to say when the store cannot be read or written.
pub(crate) fn store_error(error: &io::Error) -> BuildError {
    let built = BuildError::failed("cannot use the image store").caused_by(error);
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists => {
            built.hint("name a folder that can be written: `IMAGESPEC_CACHE_DIR`")
        }
        _ => built,
    }
}
