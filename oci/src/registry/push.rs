//! Whole images to a registry.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use tokio_util::sync::CancellationToken;

use super::mounts::Mounts;
use super::upload::BlobPush;
use super::{Registry, RegistryError};
use crate::image::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, INDEX, MANIFEST, reachable,
};
use crate::reference::Reference;
use crate::store::BlobStore;

/// Makes the blobs that a registry turns out to lack.
///
/// An image may be pushed before its blobs are here: most are in the registry already, or can be mounted, and
/// for those nobody is asked.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// Makes `blob` appear in the store that is pushed from. Asked at most once a push for each blob, and only
    /// for blobs that neither the registry nor the store has and that cannot be mounted; several may be asked
    /// for at once. The future is dropped when the push is cancelled.
    async fn provide(&self, blob: &Descriptor) -> Result<(), BuildError>;
}

/// The source of whoever has every blob in the store: a blob that is missing is an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stored;

#[async_trait]
impl BlobSource for Stored {
    async fn provide(&self, blob: &Descriptor) -> Result<(), BuildError> {
        Err(BuildError::failed(format!(
            "a blob is missing from the local store: `{}`",
            blob.digest
        )))
    }
}

/// An image to push.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// Where its documents are, and those of its blobs that the registry may lack and nobody has to make.
    pub store: &'a BlobStore,
    /// Who makes the blobs that neither the store nor the registry has; [`Stored`] where there are none.
    pub source: &'a dyn BlobSource,
    /// Its manifest or index.
    pub image: &'a Descriptor,
    /// What to call it; the registry of the name is not looked at.
    pub reference: &'a Reference,
    /// Further tags.
    pub extra_tags: &'a [String],
    /// Which other repositories may have a blob already.
    pub mounts: &'a Mounts,
    /// Whether the repository has a blob, of those that it was just asked for or sent, or that an image has which is
    /// there: it is not asked for them again, unless the image is refused for what is missing.
    pub asked: &'a BTreeMap<Digest, bool>,
    /// How many blobs may be sent at once, at least 1.
    pub parallelism: usize,
    /// Told of further bytes that the registry has; in the end of all bytes of [`reachable`]'s blobs but the
    /// manifests.
    pub progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Stops the push. The tags are set last, so that they never name half an image.
    pub cancel: &'a CancellationToken,
}

impl fmt::Debug for Push<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("image", &self.image.digest)
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes of blobs that were sent, rather than found there.
    pub bytes: u64,
}

impl Registry {
    /// Pushes an image with all its platforms: blobs, then manifests, then the tags.
    pub async fn push_image(&self, push: Push<'_>) -> Result<Pushed, RegistryError> {
        push.cancel
            .run_until_cancelled(Box::pin(self.push_all(push)))
            .await
            .unwrap_or(Err(RegistryError::Interrupted))
    }

    async fn push_all(&self, push: Push<'_>) -> Result<Pushed, RegistryError> {
        let repository = push.reference.repository.as_str();
        let (manifests, blobs): (Vec<_>, Vec<_>) = reachable(push.store, push.image)?
            .into_iter()
            .partition(is_document);
        let bytes = futures::stream::iter(blobs)
            .map(|blob| async move {
                let asked = push.asked.get(&blob.digest);
                if asked == Some(&true) {
                    (push.progress)(blob.size);
                    return Ok(0);
                }
                let wanted = BlobPush {
                    store: push.store,
                    source: push.source,
                    repository,
                    absent: asked == Some(&false),
                    mounts: push.mounts,
                    progress: push.progress,
                };
                self.push_blob(&blob, wanted).await
            })
            .buffer_unordered(push.parallelism.max(1))
            .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
            .await?;
        let named = match self.put_manifests(push, &manifests).await {
            // What it was said to have is gone, of which the registry did not tell before.
            Err(RegistryError::Incomplete { .. }) if push.asked.values().any(|there| *there) => {
                let push = Push {
                    asked: &BTreeMap::new(),
                    progress: &|_| (),
                    ..push
                };
                let again = Box::pin(self.push_all(push)).await?;
                let bytes = bytes + again.bytes;
                return Ok(Pushed { bytes });
            }
            named => named,
        };
        if named.is_ok() {
            let mounts = push.mounts;
            mounts.pushed(&self.inner.name, repository, &push.image.digest);
        }
        // A note that cannot be kept costs time, later.
        let _ = push.mounts.save(&self.inner.name);
        named.map(|()| Pushed { bytes })
    }

    async fn put_manifests(
        &self,
        push: Push<'_>,
        manifests: &[Descriptor],
    ) -> Result<(), RegistryError> {
        for manifest in manifests {
            let content = push.store.read(&manifest.digest, DOCUMENT_LIMIT)?;
            let tags = if manifest.digest == push.image.digest {
                tags(push)
            } else {
                vec![manifest.digest.to_string()]
            };
            for tag in tags {
                let repository = &push.reference.repository;
                self.put_manifest(repository, &tag, &manifest.media_type, content.clone())
                    .await?;
            }
        }
        Ok(())
    }
}

/// What the image itself is to be called: its tags, or for a reference without one its digest.
fn tags(push: Push<'_>) -> Vec<String> {
    let named = match (&push.reference.tag, &push.reference.digest) {
        (Some(tag), _) => tag.clone(),
        (None, Some(_)) => push.image.digest.to_string(),
        (None, None) => "latest".to_owned(),
    };
    let extra = push.extra_tags.iter().cloned();
    std::iter::once(named).chain(extra).collect()
}

fn is_document(blob: &Descriptor) -> bool {
    matches!(
        blob.media_type.as_str(),
        INDEX | MANIFEST | DOCKER_INDEX | DOCKER_MANIFEST
    )
}
