//! A snapshot of the machine, taken once by whoever may read the environment and handed to builders.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What builders may know of the machine they run on. Only the command line reads the environment, the
/// home directory and the working directory; everything else receives this.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The environment's variables.
    pub variables: BTreeMap<String, String>,
    /// The person's home directory.
    pub home: Option<PathBuf>,
    /// Where caches and the local image store are, an absolute path. It may not exist yet.
    pub cache_dir: PathBuf,
    /// A program of ours, and its first arguments, that becomes the first process of a sandbox:
    /// normally this very executable and `sandbox-init`.
    pub sandbox_init: Vec<PathBuf>,
    /// Whether this machine is a container of the very image that a build starts from, which takes the place of a
    /// sandbox: programs of that image run here, and nothing else of the build does.
    pub contained: bool,
    /// Whether declarations come from people who are not trusted with this machine: nothing that they name runs here,
    /// and no file of this machine is theirs to name.
    pub strangers: bool,
    /// Settings of single registries, by host and port.
    pub registries: BTreeMap<String, RegistrySettings>,
}

/// Settings of one registry: `[registries."host:port"]` of `imagespec.toml`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// Speak plain HTTP.
    #[serde(default)]
    pub insecure: bool,
    /// A PEM file with the authorities that sign this registry's certificate.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate by which this registry knows us.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// A PEM file with the key of `cert`.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl RegistrySettings {
    /// The files that they name, whose paths are relative to the file in which they stand.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.ca, &mut self.cert, &mut self.key]
            .into_iter()
            .flatten()
    }
}

impl Host {
    /// A variable of the environment; an empty one counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// `text` with every `${NAME}` replaced by the variable of that name, as pip does in requirements files; what is
    /// not set stays.
    pub fn expanded(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let value = after
                .split_once('}')
                .and_then(|(name, after)| Some((self.variable(name)?, after)));
            let (value, after) = value.unwrap_or(("${", after));
            out.push_str(value);
            rest = after;
        }
        out + rest
    }
}
