//! Options of the builder: of a deployment, of a spec's `builder_options`, of the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use imagespec_core::error::BuildError;
use imagespec_debian::ArchiveOptions;
use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::backend::ENTRY;

/// Kaniko's image, unless an option names another: that of the fork that is kept up, which is in this one place.
const KANIKO: &str = "ghcr.io/osscontainertools/kaniko:v1.28.3";
/// That of `BuildKit`, which runs without root.
const BUILDKIT: &str = "docker.io/moby/buildkit:v0.34.2-rootless";
/// How long a build may take in all.
const DEADLINE: Duration = Duration::from_hours(1);
/// How long a Job stays that nobody removed.
const TTL: Duration = Duration::from_hours(1);

/// The names of the options, each with what it means.
pub(crate) const OPTIONS: &[(&str, &str)] = &[
    (
        "kubeconfig",
        "the file that says where clusters are, from the root; by default `KUBECONFIG`, `~/.kube/config`, or the cluster that this runs in",
    ),
    (
        "context",
        "the context of that file; by default its current one",
    ),
    (
        "namespace",
        "where the Job goes; by default the context's namespace",
    ),
    ("service_account", "the account that the Job's pod runs as"),
    (
        "executor",
        "who builds in the pod: `kaniko`; `buildkit`, which needs no root; or `native`, which needs no rights at all and runs no commands",
    ),
    (
        "image",
        "the executor's image; by default Kaniko's or BuildKit's, or for `native` one with this very program, which is brought to the registry",
    ),
    (
        "cache_volume",
        "where executor `native` keeps what it fetched and made, as a volume of a pod: `{ persistentVolumeClaim = { claimName = \"x\" } }`; by default nowhere",
    ),
    (
        "context_store",
        "an object store for contexts that no ConfigMap holds, which are streamed otherwise: `s3://bucket/path`, `gs://bucket/path`, `az://container/path`",
    ),
    (
        "registry_secret",
        "a Secret of the cluster with the executor's `.dockerconfigjson`; by default one is made for the build from this machine's logins, and `none` is for a service account that is enough",
    ),
    (
        "image_pull_secrets",
        "names of Secrets that the executor's image is pulled with",
    ),
    (
        "resources",
        "`requests` and `limits` of the executor, as in a pod",
    ),
    ("node_selector", "labels of the nodes that may build"),
    ("tolerations", "taints that are tolerated, as in a pod"),
    ("affinity", "affinity, as in a pod"),
    ("priority_class", "the priority class of the pod"),
    ("labels", "further labels of the Job and its pod"),
    (
        "annotations",
        "further annotations of the Job and its pod; service meshes are told to keep out",
    ),
    (
        "pod_template",
        "whatever else the pod template should say, merged into it as `kubectl patch` does",
    ),
    (
        "deadline",
        "how long a build may take: `90s`, `30m`, `1h`, or seconds",
    ),
    (
        "retries",
        "how often a build is begun again that the cluster lost: its node, its pod",
    ),
    (
        "ttl",
        "when the cluster removes a Job that nobody removed, after its end",
    ),
    (
        "keep_failed",
        "whether a failed Job stays for `ttl`, to be read",
    ),
    (
        "cache",
        "whether the executor keeps layers, or `native` what it knows of them, in a registry for the next build",
    ),
    (
        "cache_repo",
        "the repository for that; by default `/cache` below the image's, or for `native` `imagespec-cache` beside it",
    ),
    (
        "cache_ttl",
        "how old a layer may be that is taken from there: `336h`",
    ),
    (
        "registry_mirrors",
        "mirrors of Docker Hub that the executor pulls from",
    ),
    (
        "registry_maps",
        "registries that the executor pulls from instead of others: `{ \"a.example\" = \"b.example\" }`",
    ),
    ("flags", "further flags of the executor"),
    ArchiveOptions::OPTIONS[0],
    ArchiveOptions::OPTIONS[1],
];

/// Who builds in the pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Executor {
    /// Kaniko, from a Dockerfile.
    #[default]
    Kaniko,
    /// `BuildKit` without root, from a Dockerfile.
    Buildkit,
    /// The builder `native` of this very program.
    Native,
}

/// The options that only some executors have, each with whose they are.
const OWN: [(&str, &[Executor]); 5] = [
    ("cache_ttl", &[Executor::Kaniko]),
    ("registry_mirrors", &[Executor::Kaniko, Executor::Buildkit]),
    ("registry_maps", &[Executor::Kaniko, Executor::Buildkit]),
    ("flags", &[Executor::Kaniko, Executor::Buildkit]),
    ("cache_volume", &[Executor::Native]),
];

impl Executor {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kaniko => "kaniko",
            Self::Buildkit => "buildkit",
            Self::Native => "native",
        }
    }
}

/// Where the executor's logins come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Logins {
    /// From this machine, for this build.
    #[default]
    Made,
    /// From a Secret of the cluster.
    Secret(String),
    /// From nowhere: the service account is enough.
    Account,
}

/// What the options say.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) context: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) service_account: Option<String>,
    pub(crate) executor: Executor,
    /// The executor's image, where it is named.
    pub(crate) image: Option<String>,
    pub(crate) cache_volume: Option<Map<String, Value>>,
    pub(crate) context_store: Option<String>,
    pub(crate) logins: Logins,
    pub(crate) image_pull_secrets: Vec<String>,
    pub(crate) resources: Option<ResourceRequirements>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) priority_class: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) pod_template: Map<String, Value>,
    pub(crate) deadline: Duration,
    pub(crate) retries: u32,
    pub(crate) ttl: Duration,
    pub(crate) keep_failed: bool,
    pub(crate) cache: bool,
    pub(crate) cache_repo: Option<String>,
    pub(crate) cache_ttl: Option<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) registry_maps: BTreeMap<String, String>,
    pub(crate) flags: Vec<String>,
    pub(crate) archive: ArchiveOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: None,
            service_account: None,
            executor: Executor::Kaniko,
            image: None,
            cache_volume: None,
            context_store: None,
            logins: Logins::Made,
            image_pull_secrets: Vec::new(),
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            priority_class: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            pod_template: Map::new(),
            deadline: DEADLINE,
            retries: 1,
            ttl: TTL,
            keep_failed: false,
            cache: false,
            cache_repo: None,
            cache_ttl: None,
            registry_mirrors: Vec::new(),
            registry_maps: BTreeMap::new(),
            flags: Vec::new(),
            archive: ArchiveOptions::default(),
        }
    }
}

impl Options {
    pub(crate) fn read(options: &Map<String, Value>) -> Result<Self, BuildError> {
        let mut read = Self::default();
        for (name, value) in options {
            read.set(&Given { name, value })?;
        }
        let executor = read.executor;
        let mut own = OWN.iter();
        let foreign =
            own.find(|(name, whose)| options.contains_key(*name) && !whose.contains(&executor));
        if let Some((name, whose)) = foreign {
            let whose = whose.iter().map(|whose| format!("`{}`", whose.name()));
            let whose: Vec<_> = whose.collect();
            return Err(BuildError::input(format!(
                "option `{name}` is for executor {}, and it is `{}` that builds",
                whose.join(" or "),
                executor.name()
            ))
            .field("builder_options"));
        }
        Ok(read)
    }

    /// The image of an executor that goes by a Dockerfile.
    pub(crate) fn image(&self) -> &str {
        self.image.as_deref().unwrap_or(match self.executor {
            Executor::Buildkit => BUILDKIT,
            Executor::Kaniko | Executor::Native => KANIKO,
        })
    }

    fn set(&mut self, given: &Given<'_>) -> Result<(), BuildError> {
        match given.name {
            "kubeconfig" => {
                let path = PathBuf::from(given.text()?);
                if !path.is_absolute() {
                    return Err(given.wrong("the path of a file, from the root"));
                }
                self.kubeconfig = Some(path);
            }
            "context" => self.context = Some(given.text()?),
            "namespace" => self.namespace = Some(given.text()?),
            "service_account" => self.service_account = Some(given.text()?),
            "executor" => {
                self.executor = match given.text()?.as_str() {
                    "kaniko" => Executor::Kaniko,
                    "buildkit" => Executor::Buildkit,
                    "native" => Executor::Native,
                    _ => return Err(given.wrong("`kaniko`, `buildkit` or `native`")),
                }
            }
            "image" => self.image = Some(given.text()?),
            "cache_volume" => {
                self.cache_volume = Some(given.typed("a table, as a volume of a pod")?);
            }
            "context_store" => self.context_store = Some(given.text()?),
            "registry_secret" => {
                self.logins = match given.text()?.as_str() {
                    "none" => Logins::Account,
                    name => Logins::Secret(name.to_owned()),
                }
            }
            "image_pull_secrets" => self.image_pull_secrets = given.texts()?,
            "resources" => {
                self.resources = Some(given.typed("`{ requests = {…}, limits = {…} }`")?);
            }
            "node_selector" => self.node_selector = given.typed("a table of labels")?,
            "tolerations" => self.tolerations = given.typed("a list of tolerations")?,
            "affinity" => self.affinity = Some(given.typed("an affinity, as in a pod")?),
            "priority_class" => self.priority_class = Some(given.text()?),
            "labels" => self.labels = given.typed("a table of labels")?,
            "annotations" => self.annotations = given.typed("a table of annotations")?,
            "pod_template" => self.pod_template = given.typed("a table, as a pod template")?,
            "deadline" => self.deadline = given.duration()?,
            "retries" => self.retries = given.typed("a number")?,
            "ttl" => self.ttl = given.duration()?,
            "keep_failed" => self.keep_failed = given.truth()?,
            "cache" => self.cache = given.truth()?,
            "cache_repo" => {
                self.cache_repo = Some(given.text()?);
                self.cache = true;
            }
            "cache_ttl" => {
                let ttl = given.duration()?;
                self.cache_ttl = Some(format!("{}s", ttl.as_secs()));
            }
            "registry_mirrors" => self.registry_mirrors = given.texts()?,
            "registry_maps" => {
                self.registry_maps = given.typed("a table of registries")?;
            }
            "flags" => {
                self.flags = given.texts()?;
                if !self.flags.iter().all(|flag| flag.starts_with("--")) {
                    return Err(given.wrong("flags such as `--single-snapshot`"));
                }
            }
            name => {
                let text = given.value.as_str().unwrap_or_default();
                match self.archive.set(name, text) {
                    Some(set) => {
                        given.text()?;
                        set.map_err(|expected| given.wrong(expected))?;
                    }
                    None => return Err(ENTRY.unknown_option(name)),
                }
            }
        }
        Ok(())
    }
}

/// One option.
struct Given<'a> {
    name: &'a str,
    value: &'a Value,
}

impl Given<'_> {
    fn wrong(&self, expected: &str) -> BuildError {
        ENTRY.wrong_option(self.name, expected, self.value)
    }

    fn text(&self) -> Result<String, BuildError> {
        let text = self.value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| self.wrong("a text that is not empty"))
    }

    /// A list, or one of its members: the command line says texts only.
    fn texts(&self) -> Result<Vec<String>, BuildError> {
        match self.value {
            Value::String(text) => Ok(vec![text.clone()]),
            _ => self.typed("a list of texts"),
        }
    }

    fn truth(&self) -> Result<bool, BuildError> {
        match self.value {
            Value::Bool(truth) => Ok(*truth),
            Value::String(text) => text.parse().map_err(|_| self.wrong("`true` or `false`")),
            _ => Err(self.wrong("`true` or `false`")),
        }
    }

    fn duration(&self) -> Result<Duration, BuildError> {
        const EXPECTED: &str = "a duration: `90s`, `30m`, `1h`, or seconds";
        let seconds = match self.value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => seconds(text),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| *seconds > 0 && i32::try_from(*seconds).is_ok());
        let seconds = seconds.ok_or_else(|| self.wrong(EXPECTED))?;
        Ok(Duration::from_secs(seconds))
    }

    /// A value of a type of its own; the command line says it as JSON.
    fn typed<T: DeserializeOwned>(&self, expected: &str) -> Result<T, BuildError> {
        let said = match self.value {
            Value::String(text) => serde_json::from_str(text),
            value => serde_json::from_value(value.clone()),
        };
        said.map_err(|error| self.wrong(expected).caused_by(&error))
    }
}

/// The seconds of `1h30m`, of `90s`, or of `90`.
fn seconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit = match rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    Some(sum).filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &Value) -> Result<Options, BuildError> {
        Options::read(options.as_object().expect("options"))
    }

    #[test]
    fn what_a_pod_takes_is_taken_as_in_a_pod() {
        let options = read(&json!({
            "resources": { "limits": { "memory": "2Gi", "ephemeral-storage": "10Gi" } },
            "tolerations": [{ "key": "gpu", "operator": "Exists" }],
            "registry_secret": "none",
            "deadline": "1h30m",
            "retries": "3",
            "flags": "--single-snapshot",
            "cache_repo": "registry.example/cache",
        }));
        let options = options.expect("options");
        let limits = options.resources.and_then(|all| all.limits);
        assert_eq!(limits.expect("limits")["memory"].0, "2Gi");
        assert_eq!(options.tolerations[0].key.as_deref(), Some("gpu"));
        assert_eq!(options.logins, Logins::Account);
        assert_eq!(options.deadline, Duration::from_mins(90));
        assert_eq!((options.retries, options.cache), (3, true));
        assert_eq!(options.flags, ["--single-snapshot"]);
    }

    #[test]
    fn others_are_refused_by_name() {
        for (wrong, said) in [
            (json!({"name_space": "x"}), "has no option: `name_space`"),
            (
                json!({"namespace": 1}),
                "option `namespace` of builder `kaniko`",
            ),
            (json!({"kubeconfig": "config"}), "from the root"),
            (json!({"deadline": "soon"}), "expected a duration"),
            (json!({"deadline": 0}), "expected a duration"),
            (json!({"ttl": "1d"}), "expected a duration"),
            (json!({"tolerations": "x"}), "a list of tolerations"),
            (json!({"flags": ["x"]}), "flags such as"),
            (json!({"debian_mirror": 1}), "expected a text"),
            (
                json!({"executor": "docker"}),
                "`kaniko`, `buildkit` or `native`",
            ),
            (
                json!({"executor": "native", "flags": ["--x"]}),
                "option `flags` is for executor `kaniko` or `buildkit`",
            ),
            (
                json!({"cache_volume": {"emptyDir": {}}}),
                "option `cache_volume` is for executor `native`",
            ),
        ] {
            let error = read(&wrong).expect_err("wrong options");
            assert!(error.message.contains(said), "{}", error.message);
            assert_eq!(error.field.as_deref(), Some("builder_options"));
        }
    }
}
