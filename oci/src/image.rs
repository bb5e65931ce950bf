//! Images: a configuration and a list of layers, written as the blobs of the OCI image specification 1.1.

use std::collections::BTreeMap;
use std::io;

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cache::Layer;
use crate::manifest::{invalid, nullable};
use crate::store::BlobStore;

pub use crate::manifest::{
    CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, Document, INDEX, Index,
    MANIFEST, Manifest, PlatformObject,
};

/// The time every image and every layer says it was made: [`imagespec_core::contract::MTIME`].
pub const CREATED: &str = "1980-01-01T00:00:00Z";

/// What an image says of how it is run (image specification, config, "Properties").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Runtime {
    /// User, by name or id.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub user: String,
    /// Environment, each `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint, or the command where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub working_dir: String,
    /// Labels.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub labels: BTreeMap<String, String>,
    /// What else a base image says (`ExposedPorts`, `Healthcheck`, …), kept as it came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
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
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Configuration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    architecture: String,
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: Runtime,
    rootfs: RootFs,
    #[serde(default, deserialize_with = "nullable")]
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

/// The OCI media type of a layer that has OCI's or Docker's, which stand for the same bytes.
pub fn layer_media_type(media_type: &str) -> io::Result<&str> {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => {
            Ok("application/vnd.oci.image.layer.v1.tar")
        }
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Ok("application/vnd.oci.image.layer.v1.tar+gzip")
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            Ok("application/vnd.oci.image.layer.v1.tar+zstd")
        }
        oci if oci.starts_with("application/vnd.oci.image.layer.v1.tar") => Ok(oci),
        other => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("unsupported media type of a layer: `{other}`"),
        )),
    }
}

impl Image {
    /// Writes configuration and manifest. Equal images give equal blobs.
    pub fn write(&self, store: &BlobStore) -> io::Result<Descriptor> {
        let platform = PlatformObject::from(&self.platform);
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
        let layers = self.layers.iter().map(|layer| {
            let media_type = layer_media_type(&layer.media_type)?;
            Ok(Descriptor::new(media_type, layer.digest, layer.size))
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config,
            layers: layers.collect::<io::Result<_>>()?,
            annotations: self.annotations.clone(),
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
        let config = store.read(&manifest.config.digest, DOCUMENT_LIMIT)?;
        let mut image = Self::of_config(&config, digest)?;
        if image.layers.len() != manifest.layers.len() {
            return Err(invalid(
                "the image has not as many layers as diff ids",
                digest,
            ));
        }
        for (layer, descriptor) in image.layers.iter_mut().zip(manifest.layers) {
            layer.digest = descriptor.digest;
            layer.size = descriptor.size;
            layer.media_type = descriptor.media_type;
        }
        image.annotations = manifest.annotations;
        Ok(image)
    }

    /// What a configuration says, which nothing but the diff ids of the layers is: their blobs are another's to know.
    /// `digest` is that of the image, for messages.
    pub(crate) fn of_config(config: &[u8], digest: &Digest) -> io::Result<Self> {
        let configuration: Configuration = serde_json::from_slice(config)?;
        let mut made = configuration
            .history
            .into_iter()
            .filter(|history| !history.empty_layer);
        let layers = configuration.rootfs.diff_ids.into_iter();
        let layers = layers.map(|diff_id| Layer {
            digest: diff_id,
            diff_id,
            size: 0,
            uncompressed_size: 0,
            media_type: String::new(),
            created_by: made
                .next()
                .and_then(|history| history.created_by)
                .unwrap_or_default(),
        });
        let layers = layers.collect();
        let platform = PlatformObject {
            architecture: configuration.architecture,
            os: configuration.os,
            variant: configuration.variant,
        };
        let platform = platform
            .platform()
            .ok_or_else(|| invalid("the image has an unknown platform", digest))?;
        Ok(Self {
            platform,
            runtime: configuration.config,
            layers,
            annotations: BTreeMap::new(),
        })
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
    match Document::read(store, &root.digest)? {
        Document::Manifest(manifest) => members(manifest, &mut blobs),
        Document::Index(index) => {
            for descriptor in index.manifests {
                match Document::read(store, &descriptor.digest)? {
                    Document::Manifest(manifest) => members(manifest, &mut blobs),
                    Document::Index(_) => {
                        return Err(invalid("an index lists another index", &root.digest));
                    }
                }
                blobs.push(descriptor);
            }
        }
    }
    blobs.push(root.clone());
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|blob| seen.insert(blob.digest));
    Ok(blobs)
}

fn members(manifest: Manifest, blobs: &mut Vec<Descriptor>) {
    blobs.extend(manifest.layers);
    blobs.push(manifest.config);
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
pub(crate) mod tests {
    use super::*;

    /// An image of one layer whose blob is in the store.
    pub(crate) fn stored(store: &BlobStore, content: &str) -> Image {
        let digest = store.put(content.as_bytes()).expect("a layer");
        let mut image = image(Platform::amd64());
        image.layers[0].digest = digest;
        image.layers[0].diff_id = digest;
        image.layers[0].size = content.len() as u64;
        image
    }

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
            annotations: BTreeMap::from([("form".to_owned(), "odd".to_owned())]),
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

    #[test]
    fn an_image_of_dockers_is_read_and_written_as_one_of_ocis() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let config = format!(
            r#"{{"architecture":"arm64","variant":"v8","os":"linux","container":"x",
            "config":{{"User":"","Env":null,"Cmd":["bash"],"Labels":null,"Entrypoint":null,
                "ExposedPorts":{{"80/tcp":{{}}}}}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}},
            "history":[{{"created_by":"ENV","empty_layer":true}},{{"created_by":"COPY"}}]}}"#,
            Digest::of("tar")
        );
        let config = store.put(config.as_bytes()).expect("a configuration");
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}",
            "config":{{"mediaType":"application/vnd.docker.container.image.v1+json",
                "digest":"{config}","size":1}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest":"{}","size":5}}]}}"#,
            Digest::of("layer")
        );
        let manifest = store.put(manifest.as_bytes()).expect("a manifest");
        let arm: Platform = "linux/arm64".parse().expect("a platform");
        let image = Image::read(&store, &manifest, &arm).expect("an image");
        assert_eq!(image.platform, arm);
        assert_eq!(image.runtime.cmd.as_deref(), Some(&["bash".to_owned()][..]));
        assert_eq!(image.layers[0].created_by, "COPY");
        let written = image.write(&store).expect("an image");
        let manifest = Manifest::read(&store, &written.digest, &arm).expect("a manifest");
        assert_eq!(
            manifest.layers[0].media_type,
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let config = store
            .read(&manifest.config.digest, DOCUMENT_LIMIT)
            .expect("a configuration");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert!(config["config"]["ExposedPorts"]["80/tcp"].is_object());
        assert!(config["config"].get("Env").is_none());
    }

    #[test]
    fn documents_that_are_no_image_are_refused() {
        for wrong in [
            "",
            "[]",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"mediaType":"text/plain","manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
        ] {
            let document = Document::parse(wrong.as_bytes(), &Digest::of(""));
            assert!(document.is_err(), "{wrong}");
        }
    }
}
