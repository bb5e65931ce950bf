//! The declaration of an image, exactly as a person wrote it: nothing filled in, nothing checked beyond
//! its shape.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Which container image a task needs: flytekit's `ImageSpec`, field by field, with its names and meaning.
///
/// Maps keep the order they were written in, since flytekit's tags depend on it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Repository name of the image. In `imagespec.toml` the table's key is the default, elsewhere `flytekit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version of Python, such as `"3.11"`. Without it, that of the base image.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "version"
    )]
    pub python_version: Option<String>,
    /// Name of the builder that makes this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// Folder whose files are copied to `/root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_root: Option<String>,
    /// Environment variables of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<IndexMap<String, String>>,
    /// Registry, and the path in it, that the image is pushed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Python packages, as requirements: `["requests>=2"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Vec<String>>,
    /// Conda packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conda_packages: Option<Vec<String>>,
    /// Conda channels, beside `conda-forge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conda_channels: Option<Vec<String>>,
    /// A `requirements.txt`, `uv.lock`, `poetry.lock` or `pyproject.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<String>,
    /// Debian packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt_packages: Option<Vec<String>>,
    /// Version of CUDA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
    /// Version of cuDNN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cudnn: Option<String>,
    /// What the image starts from: a reference, another image of the file, or a whole spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image: Option<BaseImage>,
    /// Platforms, separated by commas: `linux/amd64,linux/arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// URL of the package index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip_index: Option<String>,
    /// URLs of further package indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip_extra_index_url: Option<Vec<String>>,
    /// Secret files for the installation of packages: pairs of a file here and a path there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip_secret_mounts: Option<Vec<(String, String)>>,
    /// Further arguments of the package installer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip_extra_args: Option<String>,
    /// A file with settings of registries, in envd's JSON format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_config: Option<String>,
    /// Entrypoint of the image; empty for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Shell commands run as root while the image is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// Pattern of the tag, in which `{spec_hash}` stands for the computed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_format: Option<String>,
    /// Which files of `source_root` are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_copy_mode: Option<SourceCopyMode>,
    /// Files and folders copied to the same relative path below `/root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Vec<String>>,
    /// Interpreter of the base image to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_exec: Option<String>,
    /// Python packages installed when a container starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_packages: Option<Vec<String>>,
    /// Options for one builder, by its own names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder_options: Option<serde_json::Map<String, serde_json::Value>>,
    /// Helper images of the builder: `uv_image`, `micromamba_image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder_config: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The names of the fields of [`ImageSpec`], in flytekit's order.
pub const FIELDS: [&str; 29] = [
    "name",
    "python_version",
    "builder",
    "source_root",
    "env",
    "registry",
    "packages",
    "conda_packages",
    "conda_channels",
    "requirements",
    "apt_packages",
    "cuda",
    "cudnn",
    "base_image",
    "platform",
    "pip_index",
    "pip_extra_index_url",
    "pip_secret_mounts",
    "pip_extra_args",
    "registry_config",
    "entrypoint",
    "commands",
    "tag_format",
    "source_copy_mode",
    "copy",
    "python_exec",
    "runtime_packages",
    "builder_options",
    "builder_config",
];

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(deny_unknown_fields)]
pub enum BaseImage {
    /// A reference: `debian:bookworm-slim`.
    Reference(String),
    /// Another image of the same file, built first.
    Image {
        /// Its name in the file.
        image: String,
    },
    /// A whole spec, built first.
    Spec(Box<ImageSpec>),
}

impl<'de> Deserialize<'de> for BaseImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BaseVisitor;

        impl<'de> Visitor<'de> for BaseVisitor {
            type Value = BaseImage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image reference, `{ image = \"NAME\" }`, or a whole spec")
            }

            fn visit_str<E: de::Error>(self, reference: &str) -> Result<BaseImage, E> {
                Ok(BaseImage::Reference(reference.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BaseImage, A::Error> {
                let first = map.next_key::<String>()?;
                if first.as_deref() == Some("image") {
                    let image = map.next_value()?;
                    return match map.next_key::<String>()? {
                        None => Ok(BaseImage::Image { image }),
                        Some(key) => Err(de::Error::unknown_field(&key, &["image"])),
                    };
                }
                let map = Rewound { first, map };
                ImageSpec::deserialize(MapAccessDeserializer::new(map))
                    .map(|spec| BaseImage::Spec(Box::new(spec)))
            }
        }

        deserializer.deserialize_any(BaseVisitor)
    }
}

/// A version, which a person may have written as a number: `3.10` would then be `3.1`.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct VersionVisitor;

    impl Visitor<'_> for VersionVisitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a version in quotes, such as \"3.11\"")
        }

        fn visit_str<E: de::Error>(self, version: &str) -> Result<String, E> {
            Ok(version.to_owned())
        }
    }

    struct Version(String);

    impl<'de> Deserialize<'de> for Version {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(VersionVisitor).map(Version)
        }
    }

    Option::<Version>::deserialize(deserializer).map(|version| version.map(|Version(text)| text))
}

/// A map whose first key has been read, to be read again.
struct Rewound<A> {
    first: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rewound<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Which files of `source_root` are copied into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceCopyMode {
    /// Those of the modules that are loaded; only where Python code runs.
    LoadedModules,
    /// All that the ignore rules leave.
    All,
    /// None.
    NoCopy,
}

impl SourceCopyMode {
    /// The accepted names, in any case.
    pub const NAMES: [&'static str; 3] = ["loaded_modules", "all", "no_copy"];
}

impl JsonSchema for SourceCopyMode {
    fn schema_name() -> Cow<'static, str> {
        "SourceCopyMode".into()
    }

    /// The names, for editors to offer, or the same in any case: regular expressions of JSON Schema have no
    /// switch for that.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let any_case = |name: &str| {
            name.chars()
                .flat_map(|c| ['[', c.to_ascii_uppercase(), c, ']'])
                .collect::<String>()
        };
        let pattern = format!("^({})$", Self::NAMES.map(any_case).join("|"));
        json_schema!({
            "description": "Which files of `source_root` are copied into the image: all that the ignore rules leave, none, or those of the modules that Python has loaded.",
            "type": "string",
            "anyOf": [{ "enum": Self::NAMES }, { "pattern": pattern }],
        })
    }
}

impl<'de> Deserialize<'de> for SourceCopyMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.to_ascii_lowercase().as_str() {
            "loaded_modules" => Ok(Self::LoadedModules),
            "all" => Ok(Self::All),
            "no_copy" => Ok(Self::NoCopy),
            _ => Err(de::Error::unknown_variant(&name, &Self::NAMES)),
        }
    }
}
