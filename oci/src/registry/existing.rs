//! Whether a registry has an image.

use std::collections::BTreeSet;

use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::platform::Platform;

use super::mounts::Mounts;
use super::{Registry, RegistryError};
use crate::image::{
    DOCUMENT_LIMIT, Descriptor, Document, Index, MANIFEST, Manifest, PlatformObject, reachable,
};
use crate::reference::Reference;
use crate::store::BlobStore;

/// An image that a registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// Its platforms; empty where nobody asked for any.
    pub platforms: Vec<Platform>,
}

impl Registry {
    /// What the image holds that was pushed to a repository last, if the registry still has that image: it keeps what
    /// its images refer to. Takes one HEAD, or none where the note or `store` does not know the image.
    pub async fn held(
        &self,
        repository: &str,
        mounts: &Mounts,
        store: &BlobStore,
    ) -> BTreeSet<Digest> {
        let Some(digest) = mounts.last_image(&self.inner.name, repository) else {
            return BTreeSet::new();
        };
        let image = Descriptor::new(MANIFEST, digest, 0);
        let Ok(blobs) = reachable(store, &image) else {
            return BTreeSet::new();
        };
        match self.head_manifest(repository, &digest.to_string()).await {
            Ok(Some(found)) if found == digest => blobs.iter().map(|blob| blob.digest).collect(),
            // Whoever asks for each of them hears why.
            _ => BTreeSet::new(),
        }
    }

    /// The digest of the image that `reference` names. `Ok(None)` says that the registry certainly has no
    /// such image; everything short of certainty is an error of kind [`ErrorKind::Unknown`].
    pub async fn exists(&self, reference: &Reference) -> Result<Option<Digest>, BuildError> {
        Box::pin(self.head_manifest(&reference.repository, &reference.identifier()))
            .await
            .map_err(|error| unknown(reference, error))
    }

    /// The image that `reference` names, if it is there for all of `platforms`; three answers as for
    /// [`Registry::exists`]. An image that lacks one of the platforms is not the image.
    ///
    /// It takes one HEAD where no platform is asked for, and where the documents that name the platforms are in
    /// `store`; they are kept there.
    pub async fn existing(
        &self,
        reference: &Reference,
        platforms: &[Platform],
        store: &BlobStore,
    ) -> Result<Option<Existing>, BuildError> {
        Box::pin(self.look(reference, platforms, store))
            .await
            .map_err(|error| unknown(reference, error))
    }

    async fn look(
        &self,
        reference: &Reference,
        wanted: &[Platform],
        store: &BlobStore,
    ) -> Result<Option<Existing>, RegistryError> {
        let repository = &reference.repository;
        let identifier = reference.identifier();
        let Some(digest) = self.head_manifest(repository, &identifier).await? else {
            return Ok(None);
        };
        let platforms = if wanted.is_empty() {
            Vec::new()
        } else {
            match self.platforms(repository, digest, store).await? {
                Some(platforms) => platforms,
                // It went away after it was seen.
                None => return Ok(None),
            }
        };
        let complete = wanted.iter().all(|wanted| platforms.contains(wanted));
        Ok(complete.then_some(Existing { digest, platforms }))
    }

    async fn platforms(
        &self,
        repository: &str,
        digest: Digest,
        store: &BlobStore,
    ) -> Result<Option<Vec<Platform>>, RegistryError> {
        let bytes = match store.read(&digest, DOCUMENT_LIMIT) {
            Ok(bytes) => bytes,
            // Absent or damaged: either way the registry has it.
            Err(_) => match self.get_manifest(repository, &digest.to_string()).await? {
                Some((_, bytes)) => {
                    store.put(&bytes)?;
                    bytes.into()
                }
                None => return Ok(None),
            },
        };
        match Document::parse(&bytes, &digest)? {
            Document::Index(index) => Ok(Some(listed(&index))),
            Document::Manifest(manifest) => {
                let platform = self.platform(repository, &manifest, store).await?;
                Ok(Some(platform.into_iter().collect()))
            }
        }
    }

    /// The platform of a single manifest, by its configuration.
    async fn platform(
        &self,
        repository: &str,
        manifest: &Manifest,
        store: &BlobStore,
    ) -> Result<Option<Platform>, RegistryError> {
        let config = &manifest.config;
        if config.size > DOCUMENT_LIMIT {
            return Err(self.protocol("a configuration is too large"));
        }
        self.get_blob(repository, config, store, &|_| ()).await?;
        let bytes = store.read(&config.digest, DOCUMENT_LIMIT)?;
        let platform: PlatformObject = serde_json::from_slice(&bytes)
            .map_err(|_| self.protocol("a configuration names no platform"))?;
        Ok(platform.platform())
    }
}

fn listed(index: &Index) -> Vec<Platform> {
    let platforms = index.manifests.iter().filter_map(|manifest| {
        let platform = manifest.platform.as_ref()?;
        platform.platform()
    });
    platforms.collect()
}

fn unknown(reference: &Reference, error: RegistryError) -> BuildError {
    BuildError {
        kind: match error {
            RegistryError::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Unknown,
        },
        ..BuildError::from(error).context(format!(
            "cannot tell whether the image exists: `{reference}`"
        ))
    }
}
