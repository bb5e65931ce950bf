//! The cluster that builds: found as `kubectl` finds it, and asked with patience.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use k8s_openapi::NamespaceResourceScope;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};

use crate::options::Options;

/// How long a request may go unanswered.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is asked again that a cluster does not answer now.
const ATTEMPTS: u32 = 8;
/// The first pause between two attempts, which then doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// The namespace where nobody names one.
const NAMESPACE: &str = "default";

/// A cluster, and the namespace in it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// What it is called for people: its address, and who says so.
    pub(crate) place: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("place", &self.place)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster that the options name, or else the machine.
    pub(crate) async fn find(host: &Host, options: &Options) -> Result<Self, BuildError> {
        let (mut config, source) = configuration(host, options).await?;
        config.connect_timeout = Some(Duration::from_secs(5));
        // Watches and logs are quiet for long; they are begun again where they end.
        config.read_timeout = Some(Duration::from_secs(295));
        let namespace = options.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| match config.default_namespace.as_str() {
            "" => NAMESPACE.to_owned(),
            namespace => namespace.to_owned(),
        });
        let place = format!("`{}`, {source}", config.cluster_url);
        let client = Client::try_from(config).map_err(|error| {
            BuildError::input(format!("cannot talk to the cluster at {place}")).caused_by(&error)
        })?;
        Ok(Self {
            client,
            namespace,
            place,
        })
    }

    /// The objects of a kind in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Asks until there is an answer. `what` is what is asked for, as in `create a Job`.
    pub(crate) async fn ask<T, F>(
        &self,
        what: &str,
        request: impl FnMut() -> F,
    ) -> Result<T, BuildError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        self.ask_at_most(ATTEMPTS, what, request).await
    }

    /// As [`Cluster::ask`], but so often at most: whether there is a cluster at all is not worth a long wait.
    pub(crate) async fn ask_at_most<T, F>(
        &self,
        attempts: u32,
        what: &str,
        mut request: impl FnMut() -> F,
    ) -> Result<T, BuildError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut attempt = 0;
        loop {
            let answer = tokio::time::timeout(PATIENCE, request()).await;
            attempt += 1;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if attempt == attempts || !is_passing(&error) => {
                    return Err(self.refusal(what, &error));
                }
                Ok(Err(_)) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = error.filter(|_| attempt == attempts) {
                return Err(self.silence(what).caused_by(&error));
            }
            tokio::time::sleep(pause(attempt)).await;
        }
    }

    /// Why a cluster does not do something, for people.
    pub(crate) fn refusal(&self, what: &str, error: &kube::Error) -> BuildError {
        let kube::Error::Api(status) = error else {
            return self.silence(what).caused_by(error);
        };
        let said = std::io::Error::other(status.message.clone());
        let failed = match status.code {
            401 => BuildError::unavailable(format!(
                "the cluster at {} does not know who asks",
                self.place
            ))
            .hint("log in again as your cluster wants it; `kubectl get pods` must work"),
            403 => BuildError::unavailable(format!(
                "not allowed to {what} in namespace `{}`",
                self.namespace
            ))
            .hint("`imagespec doctor --builder kaniko` prints the Role that is missing"),
            404 => BuildError::unavailable(format!(
                "cannot {what} in namespace `{}`: it is not there",
                self.namespace
            ))
            .hint("name a namespace that is there with option `namespace`"),
            _ => BuildError::failed(format!("the cluster at {} cannot {what}", self.place)),
        };
        failed.caused_by(&said)
    }

    fn silence(&self, what: &str) -> BuildError {
        BuildError::unavailable(format!(
            "cannot {what}: no answer from the cluster at {}",
            self.place
        ))
        .hint("check with `kubectl cluster-info` that it is there")
    }
}

/// The pause after so many attempts, none like another.
fn pause(attempt: u32) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST);
    let nanoseconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    doubled.mul_f64(0.5 + f64::from(nanoseconds % 1000) / 2000.0)
}

/// Whether asking again may help.
fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 408 | 429 | 500..=504),
        kube::Error::HyperError(_)
        | kube::Error::Service(_)
        | kube::Error::UpgradeConnection(_) => true,
        _ => false,
    }
}

/// Whether an answer is an error of this code.
pub(crate) fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// How the cluster is reached, and who says so.
async fn configuration(host: &Host, options: &Options) -> Result<(Config, String), BuildError> {
    let named = options.kubeconfig.clone();
    let variable = || {
        let listed = host.variable("KUBECONFIG")?;
        Some(std::env::split_paths(listed).collect())
    };
    let home = || {
        let file = host.home.as_ref()?.join(".kube/config");
        file.is_file().then(|| vec![file])
    };
    let files: Option<Vec<PathBuf>> = named.map(|file| vec![file]).or_else(variable);
    let Some(files) = files.or_else(home) else {
        return inside(host, options);
    };
    let source = files
        .iter()
        .map(|file| format!("`{}`", file.display()))
        .collect::<Vec<_>>()
        .join(", ");
    let wrong = |error: &kube::config::KubeconfigError| {
        BuildError::input(format!("cannot use the kubeconfig {source}"))
            .caused_by(error)
            .hint("name one with option `kubeconfig`, and its context with option `context`")
    };
    let mut merged = Kubeconfig::default();
    for file in files.iter().filter(|file| !file.as_os_str().is_empty()) {
        let read = Kubeconfig::read_from(file).and_then(|read| merged.merge(read));
        merged = read.map_err(|error| wrong(&error))?;
    }
    let chosen = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    let context = options.context.clone();
    let context = context.or_else(|| merged.current_context.clone());
    let config = Config::from_custom_kubeconfig(merged, &chosen).await;
    let config = config.map_err(|error| wrong(&error))?;
    let context = context.unwrap_or_default();
    Ok((config, format!("context `{context}` of {source}")))
}

/// The cluster that this program runs in.
fn inside(host: &Host, options: &Options) -> Result<(Config, String), BuildError> {
    let none = || {
        BuildError::unavailable("no cluster is known")
            .hint("name a kubeconfig in `KUBECONFIG` or with option `kubeconfig`")
    };
    host.variable("KUBERNETES_SERVICE_HOST").ok_or_else(none)?;
    if let Some(context) = &options.context {
        let message = format!("there is no kubeconfig to have a context: `{context}`");
        return Err(BuildError::input(message).field("builder_options"));
    }
    let config = Config::incluster().map_err(|error| none().caused_by(&error))?;
    Ok((config, "which this runs in".to_owned()))
}
