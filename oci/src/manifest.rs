//! The documents that name blobs: OCI's manifests and indexes, and Docker's of the same shape.

use std::collections::BTreeMap;
use std::io;

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::store::BlobStore;

/// Media type of manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of indexes.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of configurations.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of Docker's manifest lists, which read as indexes.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of Docker's manifests, which read as OCI's.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest, index or configuration that is read, in bytes.
pub const DOCUMENT_LIMIT: u64 = 16 << 20;

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
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
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
    /// [`MANIFEST`] or [`DOCKER_MANIFEST`]; OCI's may leave it out.
    #[serde(default = "manifest_type")]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// An index of the manifests of several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`INDEX`] or [`DOCKER_INDEX`]; OCI's may leave it out.
    #[serde(default = "index_type")]
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

fn manifest_type() -> String {
    MANIFEST.to_owned()
}

fn index_type() -> String {
    INDEX.to_owned()
}

/// Go writes `null` for an empty text, list, map or structure.
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<&Platform> for PlatformObject {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
        }
    }
}

impl PlatformObject {
    /// The platform, if it is one that images are built for.
    pub fn platform(&self) -> Option<Platform> {
        let variant = self
            .variant
            .as_deref()
            .filter(|variant| !variant.is_empty());
        let text = match variant {
            Some(variant) => format!("{}/{}/{variant}", self.os, self.architecture),
            None => format!("{}/{}", self.os, self.architecture),
        };
        text.parse().ok()
    }
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

impl Manifest {
    /// The manifest of a digest, or the one for `platform` of the index of that digest.
    pub fn read(store: &BlobStore, digest: &Digest, platform: &Platform) -> io::Result<Self> {
        let manifest = match Document::read(store, digest)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => Document::read(store, &index.select(platform)?.digest)?,
        };
        match manifest {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(invalid("an index lists another index", digest)),
        }
    }
}

impl Index {
    /// The manifest for `platform`.
    pub fn select(&self, platform: &Platform) -> io::Result<&Descriptor> {
        let found = |descriptor: &Descriptor| descriptor.platform.as_ref()?.platform();
        let wanted = |descriptor: &&Descriptor| found(descriptor).as_ref() == Some(platform);
        self.manifests.iter().find(wanted).ok_or_else(|| {
            let known = self.manifests.iter().filter_map(found);
            let known: Vec<_> = known.map(|platform| format!("`{platform}`")).collect();
            io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "the image is for {}, not for: `{platform}`",
                    known.join(", ")
                ),
            )
        })
    }
}

/// What a digest of an image may stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image of one platform.
    Manifest(Manifest),
    /// Images of several platforms.
    Index(Index),
}

impl Document {
    /// Reads the document of a digest from a store.
    pub fn read(store: &BlobStore, digest: &Digest) -> io::Result<Self> {
        Self::parse(&store.read(digest, DOCUMENT_LIMIT)?, digest)
    }

    /// Reads a document; `digest` names it in errors.
    pub fn parse(bytes: &[u8], digest: &Digest) -> io::Result<Self> {
        let value: Value = serde_json::from_slice(bytes)?;
        let is_index = match value.get("mediaType").and_then(Value::as_str) {
            Some(INDEX | DOCKER_INDEX) => true,
            Some(MANIFEST | DOCKER_MANIFEST) => false,
            Some(_) => return Err(invalid("this is no image", digest)),
            None => value.get("manifests").is_some(),
        };
        // A document with both lists means different images to different readers (CVE-2021-41190).
        if value.get("manifests").is_some() && value.get("layers").is_some() {
            return Err(invalid("this is both a manifest and an index", digest));
        }
        Ok(if is_index {
            Self::Index(serde_json::from_value(value)?)
        } else {
            Self::Manifest(serde_json::from_value(value)?)
        })
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => &manifest.media_type,
            Self::Index(index) => &index.media_type,
        }
    }
}

pub(crate) fn invalid(problem: &str, digest: &Digest) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{problem}: `{digest}`"))
}
