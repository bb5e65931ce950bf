//! Images: a configuration and a list of layers, written as the blobs of the OCI image specification 1.1.

use std::collections::BTreeMap;
use std::io;

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use serde::{Deserialize, Serialize};

use crate::cache::Layer;
use crate::store::BlobStore;

/// Media type of manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of indexes.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of configurations.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The time every image and every layer says it was made: [`imagespec_core::contract::MTIME`].
pub const CREATED: &str = "1980-01-01T00:00:00Z";
/// The largest manifest, index or configuration that is read, in bytes.
pub const DOCUMENT_LIMIT: u64 = 16 << 20;

/// What an image says of how it is run (image specification, config, "Properties").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Runtime {
    /// User, by name or id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Environment, each `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint, or the command where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// An image of one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its platform.
    pub platform: Platform,
    /// How it is run.
    pub runtime: Runtime,
    /// Its layers, base first.
    pub layers: Vec<Layer>,
}

/// A reference by content (image specification, descriptor).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The platform it is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformObject>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A platform as indexes write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformObject {
    /// Architecture.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// [`MANIFEST`].
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
}

/// An index of the manifests of several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`INDEX`].
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
struct Configuration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    architecture: String,
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default)]
    config: Runtime,
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<History>,
}

#[derive(Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    empty_layer: bool,
}

impl Descriptor {
    /// Of a blob without platform or annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl Image {
    /// Writes configuration and manifest. Equal images give equal blobs.
    pub fn write(&self, store: &BlobStore) -> io::Result<Descriptor> {
        let platform = PlatformObject {
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
        };
        let history = self.layers.iter().map(|layer| History {
            created: Some(CREATED.to_owned()),
            created_by: Some(layer.created_by.clone()),
            empty_layer: false,
        });
        let configuration = Configuration {
            created: Some(CREATED.to_owned()),
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: self.runtime.clone(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: self.layers.iter().map(|layer| layer.diff_id).collect(),
            },
            history: history.collect(),
        };
        let config = document(store, CONFIG, &configuration)?;
        let layers = self
            .layers
            .iter()
            .map(|layer| Descriptor::new(&layer.media_type, layer.digest, layer.size));
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config,
            layers: layers.collect(),
        };
        let manifest = document(store, MANIFEST, &manifest)?;
        Ok(Descriptor {
            platform: Some(platform),
            ..manifest
        })
    }

    /// The image of a manifest, or of an index's manifest for `platform`.
    pub fn read(store: &BlobStore, digest: &Digest, platform: &Platform) -> io::Result<Self> {
        let manifest = Manifest::read(store, digest, platform)?;
        let configuration: Configuration =
            serde_json::from_slice(&store.read(&manifest.config.digest, DOCUMENT_LIMIT)?)?;
        let invalid = |problem: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{problem}: {digest}"))
        };
        if configuration.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(invalid("the image has not as many layers as diff ids"));
        }
        let mut made = configuration
            .history
            .into_iter()
            .filter(|history| !history.empty_layer);
        let layers = manifest
            .layers
            .into_iter()
            .zip(configuration.rootfs.diff_ids)
            .map(|(layer, diff_id)| Layer {
                digest: layer.digest,
                diff_id,
                size: layer.size,
                uncompressed_size: 0,
                media_type: layer.media_type,
                created_by: made
                    .next()
                    .and_then(|history| history.created_by)
                    .unwrap_or_default(),
            });
        let text = match &configuration.variant {
            Some(variant) => format!(
                "{}/{}/{variant}",
                configuration.os, configuration.architecture
            ),
            None => format!("{}/{}", configuration.os, configuration.architecture),
        };
        let layers = layers.collect();
        let platform = text
            .parse()
            .map_err(|_| invalid("the image has an unknown platform"))?;
        Ok(Self {
            platform,
            runtime: configuration.config,
            layers,
        })
    }
}

impl Manifest {
    /// The manifest of a digest, or the one for `platform` of the index of that digest.
    pub fn read(store: &BlobStore, digest: &Digest, platform: &Platform) -> io::Result<Self> {
        let bytes = store.read(digest, DOCUMENT_LIMIT)?;
        let Ok(index) = serde_json::from_slice::<Index>(&bytes) else {
            return Ok(serde_json::from_slice(&bytes)?);
        };
        let wanted = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|found| {
                found.os == platform.os
                    && found.architecture == platform.architecture
                    && found.variant == platform.variant
            })
        };
        let found = index.manifests.iter().find(wanted).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("the image is not for `{platform}`: {digest}"),
            )
        })?;
        Ok(serde_json::from_slice(
            &store.read(&found.digest, DOCUMENT_LIMIT)?,
        )?)
    }
}

/// Writes the index of several manifests.
pub fn write_index(store: &BlobStore, manifests: &[Descriptor]) -> io::Result<Descriptor> {
    let index = Index {
        schema_version: 2,
        media_type: INDEX.to_owned(),
        manifests: manifests.to_vec(),
    };
    document(store, INDEX, &index)
}

/// Every blob an image or index reaches, itself included, children first.
pub fn reachable(store: &BlobStore, root: &Descriptor) -> io::Result<Vec<Descriptor>> {
    let mut blobs = Vec::new();
    let bytes = store.read(&root.digest, DOCUMENT_LIMIT)?;
    if let Ok(index) = serde_json::from_slice::<Index>(&bytes) {
        for manifest in &index.manifests {
            blobs.extend(reachable(store, manifest)?);
        }
    } else {
        let manifest: Manifest = serde_json::from_slice(&bytes)?;
        blobs.extend(manifest.layers);
        blobs.push(manifest.config);
    }
    blobs.push(root.clone());
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|blob| seen.insert(blob.digest));
    Ok(blobs)
}

fn document<T: Serialize>(
    store: &BlobStore,
    media_type: &str,
    content: &T,
) -> io::Result<Descriptor> {
    let bytes = serde_json::to_vec(content)?;
    Ok(Descriptor::new(
        media_type,
        store.put(&bytes)?,
        bytes.len() as u64,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(platform: Platform) -> Image {
        let layer = Layer {
            digest: Digest::of("layer"),
            diff_id: Digest::of("tar"),
            size: 5,
            uncompressed_size: 0,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            created_by: "wheel six 1.17.0".into(),
        };
        let runtime = Runtime {
            user: "flytekit".into(),
            entrypoint: Some(Vec::new()),
            ..Runtime::default()
        };
        Image {
            platform,
            runtime,
            layers: vec![layer],
        }
    }

    #[test]
    fn an_image_reads_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let image = image(Platform::amd64());
        let descriptor = image.write(&store).expect("an image");
        assert_eq!(image.write(&store).expect("the same"), descriptor);
        assert_eq!(
            Image::read(&store, &descriptor.digest, &Platform::amd64()).expect("the image"),
            image
        );
    }

    #[test]
    fn an_index_gives_the_image_of_the_platform_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let arm: Platform = "linux/arm64".parse().expect("a platform");
        let images = [image(Platform::amd64()), image(arm.clone())];
        let manifests = images
            .each_ref()
            .map(|image| image.write(&store).expect("an image"));
        let index = write_index(&store, &manifests).expect("an index");
        assert_eq!(
            Image::read(&store, &index.digest, &arm).expect("the image"),
            images[1]
        );
        let missing = Image::read(
            &store,
            &index.digest,
            &"linux/s390x".parse().expect("a platform"),
        );
        assert_eq!(
            missing.expect_err("no such platform").kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(reachable(&store, &index).expect("blobs").len(), 6);
    }
}
