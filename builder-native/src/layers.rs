//! Layers: taken from the cache by what they are made from, or written now.

use std::io;

use imagespec_core::context::Compression;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_oci::cache::Layer;
use imagespec_oci::images::ImageStore;
use imagespec_oci::layer::{LayerWriter, contract_parents};
use imagespec_oci::store::BlobWriter;

/// Makes layers in a store, with one compression.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    store: ImageStore,
    compression: Compression,
}

impl Layers {
    pub(crate) fn new(store: &ImageStore, compression: Compression) -> Self {
        Self {
            store: store.clone(),
            compression,
        }
    }

    /// The key of a layer whose content depends on `content` alone.
    pub(crate) fn key(&self, content: &Digest) -> Digest {
        let mut hash = Framed::new("imagespec layer");
        hash.digest(content)
            .text(&format!("{:?}", self.compression));
        hash.finish()
    }

    /// A layer made before whose blob is here.
    pub(crate) fn get(&self, key: &Digest) -> Option<Layer> {
        let layer = self.store.layers().get(key)?;
        (self.store.blobs().contains(&layer.digest).ok()? == Some(layer.size)).then_some(layer)
    }

    /// Writes a layer, on a thread that may block, and keeps it under `key` if there is one. The blob appears
    /// only when it is complete.
    pub(crate) async fn write<F>(
        &self,
        key: Option<Digest>,
        created_by: String,
        fill: F,
    ) -> Result<Layer, BuildError>
    where
        F: FnOnce(&mut LayerWriter<BlobWriter>) -> Result<(), BuildError> + Send + 'static,
    {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let layer = this.write_here(created_by, fill)?;
            if let Some(key) = key {
                this.store
                    .layers()
                    .put(&key, &layer)
                    .map_err(|error| store_error(&error))?;
            }
            Ok(layer)
        });
        written.await.unwrap_or_else(|error| {
            Err(BuildError::failed("writing a layer panicked").caused_by(&error))
        })
    }
}

impl Layers {
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
        io::ErrorKind::StorageFull => built.hint("free some space: `imagespec cache prune`"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            built.hint("name a folder that can be written: `IMAGESPEC_CACHE_DIR`")
        }
        _ => built,
    }
}
