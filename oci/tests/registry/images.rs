//! Images to push, and where they are pulled to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::{Descriptor, Image, Runtime, reachable};
use imagespec_oci::registry::{Mounts, Pull, Push, Pushed, Stored};
use imagespec_oci::store::BlobStore;
use imagespec_oci::{Reference, Registry, RegistryError};
use tokio_util::sync::CancellationToken;

pub(crate) struct Images {
    _folder: tempfile::TempDir,
    pub(crate) store: BlobStore,
}

impl Images {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        Self {
            _folder: folder,
            store,
        }
    }

    /// An image of a large layer and a small one.
    pub(crate) fn image(&self, platform: Platform, content: &str) -> Descriptor {
        self.image_of(platform, content, 3 << 20)
    }

    /// As [`Images::image`], with the bytes of the large layer.
    pub(crate) fn image_of(&self, platform: Platform, content: &str, large: usize) -> Descriptor {
        let layer = |content: &[u8]| {
            let digest = self.store.put(content).expect("a blob");
            Layer {
                digest,
                diff_id: digest,
                size: content.len() as u64,
                uncompressed_size: content.len() as u64,
                media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
                created_by: "test".to_owned(),
            }
        };
        let image = Image {
            platform,
            runtime: Runtime::default(),
            layers: vec![layer(&vec![7; large]), layer(content.as_bytes())],
            annotations: std::collections::BTreeMap::new(),
        };
        image.write(&self.store).expect("an image")
    }
}

pub(crate) async fn push(
    registry: &Registry,
    images: &Images,
    image: &Descriptor,
    reference: &Reference,
    mounts: &Mounts,
) -> Result<(Pushed, u64), RegistryError> {
    push_by(4, registry, images, image, reference, mounts).await
}

/// As [`push`], so many blobs at once.
pub(crate) async fn push_by(
    parallelism: usize,
    registry: &Registry,
    images: &Images,
    image: &Descriptor,
    reference: &Reference,
    mounts: &Mounts,
) -> Result<(Pushed, u64), RegistryError> {
    let asked = BTreeMap::new();
    push_asked(
        &asked,
        parallelism,
        registry,
        images,
        image,
        reference,
        mounts,
    )
    .await
}

/// As [`push_by`], with what the registry was asked before.
pub(crate) async fn push_asked(
    asked: &BTreeMap<Digest, bool>,
    parallelism: usize,
    registry: &Registry,
    images: &Images,
    image: &Descriptor,
    reference: &Reference,
    mounts: &Mounts,
) -> Result<(Pushed, u64), RegistryError> {
    let told = AtomicU64::new(0);
    let progress = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let pushed = registry
        .push_image(Push {
            store: &images.store,
            source: &Stored,
            image,
            reference,
            extra_tags: &["extra".to_owned()],
            mounts,
            asked,
            parallelism,
            progress: &progress,
            cancel: &CancellationToken::new(),
        })
        .await?;
    Ok((pushed, told.into_inner()))
}

/// Pulls with all layers.
pub(crate) async fn pull(
    registry: &Registry,
    into: &Images,
    reference: &Reference,
    platform: &Platform,
) -> Result<Descriptor, RegistryError> {
    registry
        .pull_image(Pull {
            store: &into.store,
            reference,
            platform,
            layers: true,
            mounts: &Mounts::default(),
            parallelism: 4,
            progress: &|_| (),
            cancel: &CancellationToken::new(),
        })
        .await
}

pub(crate) fn blobs_of(images: &Images, image: &Descriptor) -> u64 {
    let blobs = reachable(&images.store, image).expect("blobs");
    let sizes = blobs
        .iter()
        .filter(|blob| !blob.media_type.contains("manifest") && !blob.media_type.contains("index"))
        .map(|blob| blob.size);
    sizes.sum()
}
