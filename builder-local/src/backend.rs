//! The entry under which the builder is known, and what it says of itself.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use imagespec_core::builder::{
    Availability, Builder, BuilderConfig, BuiltImage, Capability, CapabilitySet,
};
use imagespec_core::context::{BuildContext, Compression, Output};
use imagespec_core::digest::Digest;
use imagespec_core::dockerfile::Start;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::execute::OWN_BASE;
use imagespec_core::host::Host;
use imagespec_core::mask::Mask;
use imagespec_core::plan::{Base, BuildPlan};
use imagespec_core::platform::Platform;
use imagespec_core::registry::BuilderEntry;
use imagespec_oci::credentials::Credentials;
use imagespec_oci::engine::{Endpoint, EngineError, EngineVersion};
use imagespec_oci::image::Descriptor;
use imagespec_oci::images::ImageStore;
use imagespec_oci::{Engine, Registry};

use crate::buildkit::{Buildkit, Lent, Offer, Order, solve, version, way};
use crate::deliver;
use crate::lower::{Lowered, lower};
use crate::options::{OPTIONS, Options};
use crate::podman;
use crate::told::Told;

/// How the builder presents itself.
pub const ENTRY: BuilderEntry = BuilderEntry {
    name: "default",
    aliases: &["local", "docker"],
    summary: "a container engine of this machine",
    fallback: Some("native"),
    base_maker: Some("native"),
    options: OPTIONS,
    create,
};

imagespec_core::register_builder!(ENTRY);

/// The oldest API whose engines have a `BuildKit` with secrets: that of Docker 20.10.
const OLDEST: (u32, u32) = (1, 41);

/// How [`EngineVersion`] calls Podman.
const PODMAN: &str = "Podman";
/// The oldest Podman whose builds are lent files and secrets.
const OLDEST_PODMAN: u32 = 4;
/// What helps where the engine's disk is full.
const FULL: &str =
    "where it is the engine's disk, `docker system prune` removes what no container uses";
/// How long a daemon may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);
/// The exporter that sends an archive of the image.
const ARCHIVE: &str = "docker";
/// Where an exporter says the digest of what it pushed.
const DIGEST: &str = "containerimage.digest";

/// The builder.
#[derive(Debug)]
pub struct Local {
    pub(crate) host: Host,
    pub(crate) options: Options,
    pub(crate) store: ImageStore,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    Ok(Arc::new(Local {
        host: config.host.clone(),
        options: Options::read(config.options)?,
        store: ImageStore::open(&config.host.cache_dir),
    }))
}

/// Why an engine cannot build, if it cannot, and what helps.
fn unable(engine: &EngineVersion) -> Option<(String, &'static str)> {
    let EngineVersion { name, version, api } = engine;
    if *name == PODMAN {
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        return major
            .is_none_or(|major: u32| major < OLDEST_PODMAN)
            .then(|| {
                let reason = format!("{name} {version} is older than {OLDEST_PODMAN}");
                (
                    reason,
                    "install a newer Podman, or name a Docker engine in `DOCKER_HOST`",
                )
            });
    }
    let number = api.split_once('.');
    let number = number.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    if number.is_none_or(|number: (u32, u32)| number < OLDEST) {
        let reason = format!("{name} {version} is older than 20.10");
        return Some((reason, "install a newer Docker engine"));
    }
    None
}

impl Local {
    pub(crate) fn engine(&self) -> Result<Engine, EngineError> {
        Engine::new(&self.host)
    }

    async fn make(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let zstd = cx.settings.compression() == Compression::Zstd;
        if zstd && self.options.buildkit.is_none() {
            let message = "the engine compresses as it likes: `--compression zstd`";
            return Err(BuildError::input(message)
                .field("compression")
                .hint("leave it out, or choose `--builder native`, which can"));
        }
        // Nobody removes what is lent or taken meanwhile.
        let _lock = deliver::lock(self).await?;
        let maker = self.maker().await?;
        let from = self.base(plan, cx)?;
        let start = match &from {
            From::Known(reference) => reference,
            From::Lent(_) => OWN_BASE,
        };
        let Lowered {
            file,
            tree,
            doorman,
            secrets,
            proxies,
        } = lower(
            &self.host,
            &self.options.archive,
            plan,
            cx,
            Start::Image(start),
        )
        .await?;
        let mut order = self.order(plan, cx, proxies);
        let mut base = None;
        if let From::Lent(image) = &from {
            let lent = Lent::of(self.store.blobs(), image);
            base = Some(lent.map_err(|error| deliver::unwritten(&error))?);
            let from = format!("oci-layout://{OWN_BASE}@{}", image.digest);
            order.options.insert(format!("context:{OWN_BASE}"), from);
        }
        let (sink, archive) = way();
        let is_archive = order.exporter.0 == ARCHIVE;
        let offer = Offer {
            tree: Arc::new(tree),
            secrets,
            credentials: Credentials::new(&self.host),
            shared: Digest::of(cx.destination.repository()).hex(),
            base,
            sink: is_archive.then_some(sink),
        };
        let mut told = Told::new(cx.progress, &file.instructions, Mask::of(cx.secrets));
        if matches!(from, From::Lent(_)) {
            told = told.without_base();
        }
        // An archive that does not come to its end ends with what makes it.
        let (making, ended) = tokio::sync::oneshot::channel::<()>();
        let archive = archive.take_until(ended);
        let solved = async {
            let told = |status| told.take(status);
            let solved = async {
                match &maker {
                    Maker::Buildkit(buildkit) => solve(buildkit, offer, order, told).await,
                    Maker::Podman(endpoint) => {
                        let built = podman::build(endpoint, offer, &order, start, told).await;
                        built.map(|()| HashMap::new())
                    }
                }
            };
            let serve = doorman.serve(cx.files);
            tokio::pin!(solved, serve);
            // The session holds the other end as long as there is somebody to serve.
            let solved = tokio::select! {
                solved = &mut solved => solved,
                () = &mut serve => solved.await,
            };
            solved.map(|answer| (answer, making))
        };
        let (solved, taken) = if is_archive {
            let (solved, taken) = tokio::join!(solved, deliver::take(self, archive));
            (solved, Some(taken))
        } else {
            (solved.await, None)
        };
        let (answer, _) = solved.map_err(|status| told.failure(&status))?;
        match (taken, &maker) {
            (Some(taken), _) => deliver::keep(self, plan, cx, taken?).await,
            (None, Maker::Buildkit(Buildkit::Daemon(_))) => {
                let digest = answer.get(DIGEST).and_then(|digest| digest.parse().ok());
                deliver::pushed(self, plan, cx, digest).await
            }
            // Whom it trusts and how it logs in is a matter of its own configuration.
            (None, Maker::Podman(_)) if *cx.output == Output::Push => {
                deliver::push_from_here(self, plan, cx).await
            }
            (None, _) => deliver::deliver(self, plan, cx).await,
        }
    }

    /// Who builds.
    async fn maker(&self) -> Result<Maker, BuildError> {
        if let Some(daemon) = &self.options.buildkit {
            return Ok(Maker::Buildkit(Buildkit::Daemon(daemon.clone())));
        }
        let engine = self.engine()?;
        let endpoint = engine.endpoint().clone();
        if engine.version().await?.name != PODMAN {
            return Ok(Maker::Buildkit(Buildkit::Engine(endpoint)));
        }
        for (option, caches) in [
            ("cache_from", &self.options.cache_from),
            ("cache_to", &self.options.cache_to),
        ] {
            if !caches.is_empty() {
                let message = format!("Podman's builds share no caches: option `{option}`");
                return Err(BuildError::input(message)
                    .field("builder_options")
                    .hint("leave it out, or name a Docker engine in `DOCKER_HOST`"));
            }
        }
        Ok(Maker::Podman(endpoint))
    }

    /// What the image starts from.
    fn base(&self, plan: &BuildPlan, cx: &BuildContext<'_>) -> Result<From, BuildError> {
        if let Base::Reference { reference } = &plan.base {
            return Ok(From::Known(reference.clone()));
        }
        let base = cx.base.ok_or_else(|| {
            BuildError::failed("the image starts from nothing that is there").field("base_image")
        })?;
        if self.options.buildkit.is_none() {
            return Ok(From::Known(base.reference.clone()));
        }
        let kept = self.store.find(&base.reference);
        let kept = kept.map_err(|error| deliver::unwritten(&error))?;
        // What is in a registry alone is pulled from there.
        Ok(match kept {
            Some(record) => From::Lent(record.descriptor),
            None => From::Known(base.reference.clone()),
        })
    }

    fn order(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        proxies: Vec<(String, String)>,
    ) -> Order {
        let mut options = HashMap::from([("filename".to_owned(), "Dockerfile".to_owned())]);
        let platform = plan.platforms.first().map(Platform::to_string);
        options.extend(platform.map(|platform| ("platform".to_owned(), platform)));
        if cx.settings.pull && matches!(plan.base, Base::Reference { .. }) {
            options.insert("image-resolve-mode".to_owned(), "pull".to_owned());
        }
        if cx.settings.force {
            // What is not pinned is chosen again.
            options.insert("no-cache".to_owned(), String::new());
        }
        if let Some(network) = self.options.network {
            options.insert("force-network-mode".to_owned(), network.to_owned());
        }
        for (name, value) in &cx.settings.labels {
            options.insert(format!("label:{name}"), value.clone());
        }
        for (name, value) in proxies {
            options.insert(format!("build-arg:{name}"), value);
        }
        let host = self.options.network == Some("host");
        Order {
            options,
            entitlements: host
                .then(|| "network.host".to_owned())
                .into_iter()
                .collect(),
            exporter: self.exporter(cx),
            cache_from: self.options.cache_from.clone(),
            cache_to: self.options.cache_to.clone(),
        }
    }

    /// What becomes of the result.
    fn exporter(&self, cx: &BuildContext<'_>) -> (&'static str, HashMap<String, String>) {
        let names = deliver::references(cx).join(",");
        let mut attributes = HashMap::from([("name".to_owned(), names)]);
        if self.options.buildkit.is_none() {
            return ("moby", attributes);
        }
        let mut say = |name: &str, value: &str| {
            attributes.insert(name.to_owned(), value.to_owned());
        };
        say("oci-mediatypes", "true");
        if cx.settings.compression() == Compression::Zstd {
            say("compression", "zstd");
            say("force-compression", "true");
        }
        if *cx.output != Output::Push {
            return (ARCHIVE, attributes);
        }
        say("push", "true");
        let registry = cx.destination.registry.as_deref().unwrap_or_default();
        let registry = registry.split('/').next().unwrap_or_default();
        if Registry::new(&self.host, registry).is_ok_and(|registry| registry.is_plain()) {
            say("registry.insecure", "true");
        }
        ("image", attributes)
    }

    /// Whether the daemon answers.
    async fn probe_daemon(&self, daemon: &Endpoint) -> Availability {
        let place = format!("`{}`, {}", daemon.address(), daemon.source());
        let reason = match tokio::time::timeout(PATIENCE, version(daemon)).await {
            Ok(Ok(version)) => {
                let detail = format!("BuildKit {version} at {place}");
                return Availability::Ready { detail };
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        Availability::Missing {
            reason: format!("{reason} (at {place})"),
            hint: "start `buildkitd` there, or leave `buildkit_host` out: the engine of this machine then builds"
                .to_owned(),
        }
    }
}

/// Whether an engine says that its disk is full.
fn is_full(error: &BuildError) -> bool {
    let first: &(dyn Error + 'static) = error;
    let chain = std::iter::successors(Some(first), |error| (*error).source());
    let mut said = chain.map(|error| error.to_string().to_lowercase());
    said.any(|said| said.contains("no space left on device"))
}

/// Who builds.
enum Maker {
    Buildkit(Buildkit),
    Podman(Endpoint),
}

/// What an image starts from.
enum From {
    /// An image that whoever builds knows.
    Known(String),
    /// An image of the store.
    Lent(Descriptor),
}

#[async_trait]
impl Builder for Local {
    fn capabilities(&self) -> CapabilitySet {
        CapabilitySet::from([
            Capability::BaseDebian,
            Capability::BaseImage,
            Capability::BaseReference,
            Capability::PythonExec,
            Capability::AptPackages,
            Capability::PythonPackages,
            Capability::RuntimePackages,
            Capability::Run,
            Capability::Secrets,
            Capability::OutputPush,
            Capability::OutputStore,
            Capability::OutputDocker,
            Capability::OutputOciDir,
            Capability::OutputTar,
        ])
    }

    async fn probe(&self) -> Availability {
        if let Some(daemon) = &self.options.buildkit {
            return self.probe_daemon(daemon).await;
        }
        let found = async {
            let engine = self.engine()?;
            let version = engine.version().await?;
            Ok::<_, EngineError>((version, engine))
        };
        match found.await {
            Ok((version, engine)) => {
                let place = format!("`{}`, {}", engine.address(), engine.endpoint().source());
                match unable(&version) {
                    Some((reason, hint)) => Availability::Missing {
                        reason: format!("{reason} (at {place})"),
                        hint: hint.to_owned(),
                    },
                    None => Availability::Ready {
                        detail: format!("{} {} at {place}", version.name, version.version),
                    },
                }
            }
            Err(error) => {
                let error = BuildError::from(error);
                Availability::Missing {
                    reason: error.message,
                    hint: error.hints.join("; "),
                }
            }
        }
    }

    async fn find(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        deliver::find(self, plan, cx).await
    }

    async fn tag(&self, image: &BuiltImage, cx: &BuildContext<'_>) -> Result<(), BuildError> {
        deliver::tag(self, image, cx).await
    }

    async fn build(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let make = Box::pin(self.make(plan, cx));
        let built = cx.cancel.run_until_cancelled(make).await;
        match built.unwrap_or_else(|| Err(BuildError::interrupted())) {
            // An engine that hears of it first says that it was cancelled.
            Err(error) if cx.cancel.is_cancelled() && error.kind != ErrorKind::Interrupted => {
                Err(BuildError::interrupted())
            }
            built => built.map_err(|error| {
                if is_full(&error) {
                    error.hint(FULL)
                } else {
                    error
                }
            }),
        }
    }

    fn base_output(&self, _: &Output) -> Option<Output> {
        Some(self.local_output())
    }

    fn local_output(&self) -> Output {
        match self.options.buildkit {
            Some(_) => Output::Store,
            None => Output::Docker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(name: &'static str, version: &str, api: &str) -> EngineVersion {
        EngineVersion {
            name,
            version: version.to_owned(),
            api: api.to_owned(),
        }
    }

    #[test]
    fn engines_since_docker_20_10_can_build() {
        assert_eq!(unable(&engine("Docker", "20.10.24", "1.41")), None);
        assert_eq!(unable(&engine("Docker", "29.1.0", "1.52")), None);
        let (reason, _) = unable(&engine("Docker", "19.03.1", "1.40")).expect("too old");
        assert_eq!(reason, "Docker 19.03.1 is older than 20.10");
        assert_eq!(unable(&engine("Podman", "4.3.1", "1.41")), None);
        let (reason, _) = unable(&engine("Podman", "3.4.4", "1.40")).expect("too old");
        assert_eq!(reason, "Podman 3.4.4 is older than 4");
    }
}
