//! Deployments: where images go and who builds them, by default.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The defaults of one deployment: `[deployments.NAME]` of `imagespec.toml` or of the person's own
/// configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The builder of images that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// The registry of images that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// What the cluster calls that registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_registry: Option<String>,
    /// The SDK added to every image that does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<Sdk>,
    /// How tags are computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_scheme: Option<crate::tag::TagScheme>,
    /// The command that `run` and `register` hand code to, and its first arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_command: Option<Vec<String>>,
    /// Options of single builders, by the builder's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub builders: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

/// An SDK that can be added to images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sdk {
    /// flytekit.
    Flytekit,
}

/// The deployments everyone has, with the builder each uses by default, and the command of the platform.
pub const BUILT_IN: [(&str, &str, &str); 4] = [
    ("flyte", "default", "pyflyte"),
    ("serverless", "union", "union"),
    ("byoc", "default", "union"),
    ("selfmanaged", "default", "union"),
];

impl Deployment {
    /// A built-in deployment.
    pub fn built_in(name: &str) -> Option<Self> {
        let found = BUILT_IN.iter().find(|(known, ..)| *known == name);
        let (_, builder, command) = found?;
        Some(Self {
            builder: Some((*builder).to_owned()),
            platform_command: Some(vec![(*command).to_owned()]),
            ..Self::default()
        })
    }

    /// This deployment, with whatever it leaves open taken from `other`. Options of builders are merged
    /// key by key.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.builder = self.builder.or(other.builder);
        self.registry = self.registry.or(other.registry);
        self.pull_registry = self.pull_registry.or(other.pull_registry);
        self.sdk = self.sdk.or(other.sdk);
        self.tag_scheme = self.tag_scheme.or(other.tag_scheme);
        self.platform_command = self.platform_command.or(other.platform_command);
        for (builder, options) in other.builders {
            let mine = self.builders.entry(builder).or_default();
            for (key, value) in options {
                mine.entry(key).or_insert(value);
            }
        }
        self
    }
}
