//! The Job of a build, and what belongs to it: as manifests, from nothing but values.

use std::collections::BTreeMap;

use imagespec_core::context::{BuildContext, Compression, SecretMount};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::dockerfile::{LENT, SECRETS, UNPACKED, secret};
use imagespec_core::error::BuildError;
use imagespec_core::plan::BuildPlan;
use imagespec_core::platform::Platform;
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Map, Value, json};

use crate::assignment::lent::AUTHORITIES;
use crate::buildkit;
use crate::merge::merge;
use crate::options::{Executor, Logins, Options};
use crate::program::HOME;

/// The label by which all Jobs of ours are known.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "imagespec");
/// The annotation that says how far the context is on its way to the pod.
pub(crate) const CONTEXT: &str = "imagespec/context";
/// Its value while one client sends the context.
pub(crate) const SENDING: &str = "sending";
/// Its value when everything was sent.
pub(crate) const SENT: &str = "sent";
/// The annotation with the reference of the image.
pub(crate) const REFERENCE: &str = "imagespec/reference";
/// The annotation with whoever made the Job.
pub(crate) const CLIENT: &str = "imagespec/client";
/// How the authorities of registries are called among what a build is lent.
pub(crate) const AUTHORITY: &str = "imagespec-registry-";
/// The executor's container.
pub(crate) const EXECUTOR: &str = "executor";
/// The container that fetches a context.
pub(crate) const FETCHER: &str = "context";
/// The URL of a context in an object store, among what a build is lent.
pub(crate) const URL: &str = "imagespec-context-url";
/// The key of the context in its `ConfigMap`.
pub(crate) const ARCHIVE: &str = "context.tar.gz";
/// The key of logins in a Secret.
const LOGINS: &str = ".dockerconfigjson";
/// Where an executor without root may write, and where `native` keeps what it fetched and made.
pub(crate) const WORK: &str = "/imagespec/work";
/// Who runs executor `native`: nobody in particular.
pub(crate) const NOBODY: u32 = 65532;

/// Where things are mounted in an executor's container.
pub(crate) struct Places {
    /// What the build is lent.
    pub(crate) lent: &'static str,
    /// Logins at registries.
    pub(crate) logins: &'static str,
    /// A context that is no stream.
    pub(crate) context: &'static str,
}

impl Executor {
    pub(crate) const fn places(self) -> Places {
        match self {
            Self::Kaniko => Places {
                lent: SECRETS,
                logins: "/kaniko/.docker",
                context: "/kaniko/context",
            },
            Self::Buildkit | Self::Native => Places {
                lent: "/imagespec/lent",
                logins: "/imagespec/logins",
                context: "/imagespec/context",
            },
        }
    }
}
/// What an executor may do to the files of its own container, which root may not be without.
const RIGHTS: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETFCAP",
    "SETGID",
    "SETUID",
];

/// How the context gets into the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In a `ConfigMap`, where it is small.
    Mounted,
    /// Over the standard input of the executor.
    Streamed,
    /// From an object store, by a container of ours before the executor's.
    Stored,
}

/// What brings a context from an object store.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    pub(crate) program: Brought,
    /// What is to come.
    pub(crate) digest: Digest,
}

/// A program that another image has.
#[derive(Debug, Clone)]
pub(crate) struct Brought {
    pub(crate) image: String,
    /// How it is started.
    pub(crate) command: Vec<String>,
}

/// What a Job is made from.
#[derive(Clone)]
pub(crate) struct Order<'a> {
    pub(crate) name: String,
    /// The name of its Secret and its `ConfigMap`.
    pub(crate) belongings: String,
    pub(crate) namespace: &'a str,
    pub(crate) reference: String,
    pub(crate) options: &'a Options,
    /// The image of the executor's container.
    pub(crate) image: String,
    /// The program that is brought into it, where it is not in it.
    pub(crate) program: Option<Brought>,
    /// What the executor runs on.
    pub(crate) platform: Platform,
    pub(crate) arguments: Vec<String>,
    pub(crate) way: Way,
    pub(crate) fetcher: Option<Fetcher>,
    /// What the build is lent, by name.
    pub(crate) lent: BTreeMap<String, Vec<u8>>,
    /// The declaration's own of that.
    pub(crate) declared: &'a [SecretMount],
    /// Logins at registries, as Docker's configuration has them.
    pub(crate) logins: Option<Value>,
    /// Proxies that the executor itself goes by: they may hold a login, so that no argument has them.
    pub(crate) proxies: BTreeMap<String, String>,
}

/// The name of the Job of a plan and its destination: whoever builds the same meets at it.
pub(crate) fn name(plan: &BuildPlan, cx: &BuildContext<'_>, image: &str) -> String {
    let mut framed = Framed::new("kaniko");
    framed.digest(&plan.digest());
    framed.text(&cx.destination.reference());
    framed.list(&cx.destination.extra_tags, |framed, tag| {
        framed.text(tag);
    });
    framed.list(&cx.settings.labels, |framed, (name, value)| {
        framed.text(name).text(value);
    });
    let compression = cx.settings.compression.map(Compression::name);
    framed.option(compression, |framed, name| {
        framed.text(name);
    });
    framed.number(u64::from(cx.settings.bytecode()));
    framed.text(image);
    format!("imagespec-{}", &framed.finish().hex()[..24])
}

/// The name of what belongs to a Job that a client made. It is new with every client: a node may still have what belonged to
/// an earlier Job of the same name, and give that to its pods.
pub(crate) fn belongings(name: &str, client: &str) -> String {
    let mut framed = Framed::new("client");
    framed.text(client);
    format!("{name}-{}", &framed.finish().hex()[..8])
}

impl Order<'_> {
    /// The Job, which does not begin before it is told to.
    pub(crate) fn job(&self) -> Result<Job, BuildError> {
        let options = self.options;
        let mut labels = options.labels.clone();
        labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
        labels.insert("app.kubernetes.io/name".to_owned(), "imagespec".to_owned());
        let mut annotations = options.annotations.clone();
        annotations.insert(REFERENCE.to_owned(), self.reference.clone());
        let Value::Object(mut template) = self.template(&labels) else {
            return Err(BuildError::failed("a template is an object"));
        };
        merge(&mut template, &options.pod_template);
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "suspend": true,
                // A context that was streamed is gone with its pod.
                "backoffLimit": 0,
                "activeDeadlineSeconds": options.deadline.as_secs(),
                "ttlSecondsAfterFinished": options.ttl.as_secs(),
                "template": template,
            },
        });
        serde_json::from_value(job).map_err(|error| {
            BuildError::input("option `pod_template` makes no pod template")
                .field("builder_options")
                .caused_by(&error)
        })
    }

    fn template(&self, labels: &BTreeMap<String, String>) -> Value {
        let options = self.options;
        let mut labels = json!(labels);
        labels["sidecar.istio.io/inject"] = "false".into();
        let mut annotations = json!({
            "sidecar.istio.io/inject": "false",
            "linkerd.io/inject": "disabled",
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        });
        for (name, value) in &options.annotations {
            annotations[name] = value.as_str().into();
        }
        let mut nodes = json!({
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": self.platform.architecture,
        });
        for (name, value) in &options.node_selector {
            nodes[name] = value.as_str().into();
        }
        let mut spec = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": false,
            "automountServiceAccountToken": options.service_account.is_some(),
            "nodeSelector": nodes,
            "volumes": self.volumes(),
            "containers": [self.container()],
        });
        let mut say = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec[name] = value;
            }
        };
        // What is mounted can be read by that group.
        let group = match options.executor {
            Executor::Kaniko => None,
            Executor::Buildkit => Some(buildkit::USER),
            Executor::Native => Some(NOBODY),
        };
        say(
            "securityContext",
            group.map(|group| json!({ "fsGroup": group })),
        );
        let first: Vec<_> = self.fetching().into_iter().chain(self.bringer()).collect();
        say("initContainers", (!first.is_empty()).then(|| json!(first)));
        say(
            "serviceAccountName",
            options.service_account.as_ref().map(|name| json!(name)),
        );
        say(
            "priorityClassName",
            options.priority_class.as_ref().map(|name| json!(name)),
        );
        say(
            "affinity",
            options.affinity.as_ref().map(|affinity| json!(affinity)),
        );
        let tolerations = (!options.tolerations.is_empty()).then(|| json!(options.tolerations));
        say("tolerations", tolerations);
        // What we bring is in the registry that the image is pushed to.
        let own = self
            .logins_name()
            .filter(|_| self.program.is_some() || self.fetcher.is_some());
        let secrets = options.image_pull_secrets.iter().map(String::as_str);
        let secrets: Vec<_> = secrets
            .chain(own)
            .map(|name| json!({ "name": name }))
            .collect();
        say(
            "imagePullSecrets",
            (!secrets.is_empty()).then(|| json!(secrets)),
        );
        json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec })
    }

    fn container(&self) -> Value {
        let executor = self.options.executor;
        let places = executor.places();
        let mut mounts = self.writable();
        if !self.lent.is_empty() {
            mounts.push(read("secrets", places.lent));
        }
        if self.logins_name().is_some() {
            mounts.push(read("logins", places.logins));
        }
        let streamed = self.way == Way::Streamed;
        if !streamed {
            mounts.push(read("context", places.context));
        }
        let mut env = self.variables();
        let rights = match executor {
            Executor::Kaniko => json!({
                "runAsUser": 0,
                "runAsGroup": 0,
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"], "add": RIGHTS },
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
            Executor::Buildkit => {
                env.push(json!({ "name": "DOCKER_CONFIG", "value": places.logins }));
                buildkit::rights()
            }
            Executor::Native => {
                let variables = [
                    ("DOCKER_CONFIG", places.logins.to_owned()),
                    ("HOME", format!("{WORK}/home")),
                    ("TMPDIR", WORK.to_owned()),
                    ("IMAGESPEC_CACHE_DIR", format!("{WORK}/cache")),
                ];
                env.extend(variables.map(|(name, value)| json!({ "name": name, "value": value })));
                env.extend(self.authorities());
                unprivileged()
            }
        };
        let mut container = json!({
            "name": EXECUTOR,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "args": self.arguments,
            "env": env,
            "stdin": streamed,
            "stdinOnce": streamed,
            "resources": self.resources("500m", "512Mi"),
            "securityContext": rights,
            "volumeMounts": mounts,
        });
        if executor == Executor::Buildkit {
            container["command"] = buildkit::command();
        } else if let Some(program) = &self.program {
            container["command"] = json!(program.command);
        }
        container
    }

    /// What a container may use: containers before the executor's count only as far as they want more, and a quota may
    /// want to hear of each.
    fn resources(&self, cpu: &str, memory: &str) -> Value {
        let said = self.options.resources.as_ref();
        said.map_or_else(
            || json!({ "requests": { "cpu": cpu, "memory": memory } }),
            |said| json!(said),
        )
    }

    /// The proxies by which a container goes.
    fn variables(&self) -> Vec<Value> {
        let proxies = self.proxies.keys().map(|name| {
            let key = json!({ "name": self.belongings, "key": name });
            json!({ "name": name, "valueFrom": { "secretKeyRef": key } })
        });
        proxies.collect()
    }

    /// Whom this program trusts in a container, where it is lent that.
    fn authorities(&self) -> Option<Value> {
        let file = format!("{}/{AUTHORITIES}", self.options.executor.places().lent);
        let lent = self.lent.contains_key(AUTHORITIES);
        lent.then(|| json!({ "name": "SSL_CERT_FILE", "value": file }))
    }

    /// Brings the context from an object store to where the executor's container has it.
    fn fetching(&self) -> Option<Value> {
        let Fetcher { program, digest } = self.fetcher.as_ref()?;
        let places = self.options.executor.places();
        let mut env = self.variables();
        env.extend(self.authorities());
        let (url, to) = (
            format!("{}/{URL}", places.lent),
            format!("{}/{ARCHIVE}", places.context),
        );
        Some(json!({
            "name": FETCHER,
            "image": program.image,
            "imagePullPolicy": "IfNotPresent",
            "command": program.command,
            "args": ["kaniko", "fetch", url, digest, to],
            "env": env,
            "resources": self.resources("100m", "64Mi"),
            "securityContext": unprivileged(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                read("secrets", places.lent),
                { "name": "context", "mountPath": places.context },
            ],
        }))
    }

    /// Brings the program to where the executor's container has it, too.
    fn bringer(&self) -> Option<Value> {
        let program = self.program.as_ref()?;
        let at = format!("{WORK}/program");
        Some(json!({
            "name": "program",
            "image": program.image,
            "imagePullPolicy": "IfNotPresent",
            "command": program.command,
            "args": ["kaniko", "bring", HOME, at],
            "resources": self.resources("100m", "64Mi"),
            "securityContext": unprivileged(),
            "volumeMounts": [{ "name": "program", "mountPath": at }],
        }))
    }

    /// What is mounted to be written to, and the declaration's own secrets, where commands look for them.
    fn writable(&self) -> Vec<Value> {
        let mount = |volume: &str, path: &str| json!({ "name": volume, "mountPath": path });
        let mut mounts = match self.options.executor {
            Executor::Kaniko => vec![mount("lent", LENT), mount("unpacked", UNPACKED)],
            // Secrets are mounted by each `RUN` that asks for them.
            Executor::Buildkit => return vec![mount("work", WORK)],
            Executor::Native => {
                let mut program = mount("program", HOME);
                program["readOnly"] = true.into();
                vec![mount("work", WORK), program]
            }
        };
        if self.options.cache_volume.is_some() {
            mounts.push(mount("cache", &format!("{WORK}/cache")));
        }
        mounts.extend(self.declared.iter().enumerate().map(|(at, declared)| {
            json!({
                "name": "secrets",
                "mountPath": declared.target,
                "subPath": secret::declared(at),
                "readOnly": true,
            })
        }));
        mounts
    }

    /// The name of the Secret with logins at registries.
    fn logins_name(&self) -> Option<&str> {
        match &self.options.logins {
            Logins::Secret(name) => Some(name),
            Logins::Made => self.logins.as_ref().map(|_| self.belongings.as_str()),
            Logins::Account => None,
        }
    }

    fn volumes(&self) -> Value {
        let empty = |name: &str| json!({ "name": name, "emptyDir": {} });
        let mut volumes = match self.options.executor {
            // The folder that an executor makes for the context itself is closed to the image's user.
            Executor::Kaniko => vec![empty("lent"), empty("unpacked")],
            Executor::Buildkit => vec![empty("work")],
            Executor::Native => vec![empty("work"), empty("program")],
        };
        if let Some(cache) = &self.options.cache_volume {
            let mut cache = cache.clone();
            cache.insert("name".to_owned(), "cache".into());
            volumes.push(cache.into());
        }
        let items: Vec<_> = self
            .lent
            .keys()
            .map(|key| json!({ "key": key, "path": key }))
            .collect();
        if !items.is_empty() {
            // What runs as the image's user reads some of them.
            volumes.push(json!({
                "name": "secrets",
                "secret": { "secretName": self.belongings, "defaultMode": 0o444, "items": items },
            }));
        }
        if let Some(secret) = self.logins_name() {
            let items = json!([{ "key": LOGINS, "path": "config.json" }]);
            volumes.push(json!({
                "name": "logins",
                "secret": { "secretName": secret, "defaultMode": 0o400, "items": items },
            }));
        }
        match self.way {
            Way::Mounted => {
                volumes
                    .push(json!({ "name": "context", "configMap": { "name": self.belongings } }));
            }
            Way::Stored => volumes.push(empty("context")),
            Way::Streamed => {}
        }
        json!(volumes)
    }

    /// The Secret with what the build is lent, where it is lent anything.
    pub(crate) fn secret(&self, owner: Option<&OwnerReference>) -> Option<Secret> {
        let lent = self.lent.iter();
        let lent = lent.map(|(name, content)| (name.clone(), content.clone()));
        let logins = self.logins.iter();
        let logins = logins.map(|logins| (LOGINS.to_owned(), logins.to_string().into_bytes()));
        let proxies = self.proxies.iter();
        let proxies = proxies.map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        let data: BTreeMap<_, _> = lent
            .chain(logins)
            .chain(proxies)
            .map(|(name, content)| (name, ByteString(content)))
            .collect();
        (!data.is_empty()).then(|| Secret {
            metadata: self.owned(owner),
            immutable: Some(true),
            // With logins it is one that images are pulled with, too.
            type_: self
                .logins
                .as_ref()
                .map(|_| "kubernetes.io/dockerconfigjson".to_owned()),
            data: Some(data),
            ..Secret::default()
        })
    }

    /// The `ConfigMap` with the context.
    pub(crate) fn config_map(&self, owner: Option<&OwnerReference>, archive: Vec<u8>) -> ConfigMap {
        ConfigMap {
            metadata: self.owned(owner),
            immutable: Some(true),
            binary_data: Some(BTreeMap::from([(ARCHIVE.to_owned(), ByteString(archive))])),
            ..ConfigMap::default()
        }
    }

    fn owned(&self, owner: Option<&OwnerReference>) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.belongings.clone()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(BTreeMap::from([(
                MANAGED_BY.0.to_owned(),
                MANAGED_BY.1.to_owned(),
            )])),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        }
    }
}

/// A volume that is read.
fn read(volume: &str, path: &str) -> Value {
    json!({ "name": volume, "mountPath": path, "readOnly": true })
}

/// The rights of who needs none.
fn unprivileged() -> Value {
    json!({
        "runAsUser": NOBODY,
        "runAsGroup": NOBODY,
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// What belongs to a Job says so with this: the cluster removes it with the Job.
pub(crate) fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// Logins as Docker's configuration has them, by registry.
pub(crate) fn logins(found: &BTreeMap<String, Value>) -> Option<Value> {
    let auths: Map<_, _> = found.clone().into_iter().collect();
    (!auths.is_empty()).then(|| json!({ "auths": auths }))
}

#[cfg(test)]
mod tests;
