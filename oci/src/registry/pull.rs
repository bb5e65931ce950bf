//! Whole images from a registry.

use std::fmt;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use imagespec_core::platform::Platform;
use tokio_util::sync::CancellationToken;

use super::mounts::Mounts;
use super::{Registry, RegistryError};
use crate::image::{DOCUMENT_LIMIT, Descriptor, Document, Image, Manifest};
use crate::reference::Reference;
use crate::store::BlobStore;

/// An image to pull.
#[derive(Clone, Copy)]
pub struct Pull<'a> {
    /// Where it goes.
    pub store: &'a BlobStore,
    /// Its name; the registry of the name is not looked at.
    pub reference: &'a Reference,
    /// The platform wanted.
    pub platform: &'a Platform,
    /// Whether to fetch the layers too, or only the documents.
    pub layers: bool,
    /// Told which layers the repository holds.
    pub mounts: &'a Mounts,
    /// How many layers may be fetched at once, at least 1.
    pub parallelism: usize,
    /// Told of further bytes of layers that are here.
    pub progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Stops the pull. Blobs that are complete stay.
    pub cancel: &'a CancellationToken,
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull")
            .field("reference", &self.reference)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Pulls an image for one platform, and returns its manifest, which [`Image::read`] reads. Everything is
    /// kept as the registry has it.
    pub async fn pull_image(&self, pull: Pull<'_>) -> Result<Descriptor, RegistryError> {
        pull.cancel
            .run_until_cancelled(Box::pin(self.pull_all(pull)))
            .await
            .unwrap_or(Err(RegistryError::Interrupted))
    }

    async fn pull_all(&self, pull: Pull<'_>) -> Result<Descriptor, RegistryError> {
        let repository = pull.reference.repository.as_str();
        let (descriptor, manifest, bytes) = self.resolve(pull).await?;
        if manifest.config.size > DOCUMENT_LIMIT {
            return Err(self.protocol("a configuration is too large"));
        }
        pull.store.put(&bytes)?;
        self.get_blob(repository, &manifest.config, pull.store, &|_| ())
            .await?;
        let image = Image::read(pull.store, &descriptor.digest, pull.platform)?;
        if image.platform != *pull.platform {
            return Err(RegistryError::Platform {
                wanted: pull.platform.to_string(),
                found: image.platform.to_string(),
            });
        }
        for layer in &manifest.layers {
            pull.mounts
                .holds(&self.inner.name, repository, &layer.digest);
        }
        // A note that cannot be kept costs time, later.
        let _ = pull.mounts.save(&self.inner.name);
        if pull.layers {
            futures::stream::iter(manifest.layers)
                .map(|layer| async move {
                    self.get_blob(repository, &layer, pull.store, pull.progress)
                        .await
                })
                .buffer_unordered(pull.parallelism.max(1))
                .try_collect::<()>()
                .await?;
        }
        Ok(descriptor)
    }

    /// The manifest for the platform, through an index where there is one.
    async fn resolve(
        &self,
        pull: Pull<'_>,
    ) -> Result<(Descriptor, Manifest, Bytes), RegistryError> {
        let (descriptor, bytes) = self.document_of(pull, &pull.reference.identifier()).await?;
        let chosen = match Document::parse(&bytes, &descriptor.digest)? {
            Document::Manifest(manifest) => return Ok((descriptor, manifest, bytes)),
            Document::Index(index) => {
                pull.store.put(&bytes)?;
                index.select(pull.platform)?.digest
            }
        };
        let (descriptor, bytes) = self.document_of(pull, &chosen.to_string()).await?;
        match Document::parse(&bytes, &descriptor.digest)? {
            Document::Manifest(manifest) => Ok((descriptor, manifest, bytes)),
            Document::Index(_) => Err(self.protocol("an index lists another index")),
        }
    }

    async fn document_of(
        &self,
        pull: Pull<'_>,
        identifier: &str,
    ) -> Result<(Descriptor, Bytes), RegistryError> {
        let found = self
            .get_manifest(&pull.reference.repository, identifier)
            .await?;
        found.ok_or_else(|| RegistryError::NotFound(pull.reference.to_string()))
    }
}
