//! A build, from the plan to where the image should be: by an engine's `BuildKit`, by a daemon of its own, or by Podman.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;

use futures::StreamExt as _;
use imagespec_core::builder::BuiltImage;
use imagespec_core::context::{BuildContext, Compression, Output};
use imagespec_core::digest::Digest;
use imagespec_core::dockerfile::{Dialect, Start};
use imagespec_core::error::BuildError;
use imagespec_core::execute::OWN_BASE;
use imagespec_core::mask::Mask;
use imagespec_core::plan::{Base, BuildPlan};
use imagespec_core::platform::Platform;
use imagespec_dockerfile::{Lowered, Site, Told, lower};
use imagespec_oci::Registry;
use imagespec_oci::credentials::Credentials;
use imagespec_oci::delivery::{references, unwritten};
use imagespec_oci::engine::Endpoint;
use imagespec_oci::image::Descriptor;
use tonic::{Code, Status};

use crate::backend::{Local, PODMAN};
use crate::buildkit::{Buildkit, Lent, Offer, Order, solve, way};
use crate::caches::{self, Lent as Caches};
use crate::deliver;
use crate::podman;

/// The exporter that sends an archive of the image.
const ARCHIVE: &str = "docker";
/// Where an exporter says the digest of what it pushed.
const DIGEST: &str = "containerimage.digest";

/// Why a build failed: the instruction that did, or what the engine says.
fn failure(mut told: Told<'_>, status: &Status) -> BuildError {
    told.failure().unwrap_or_else(|| {
        let said = std::io::Error::other(told.masked(status.message()));
        // What an engine says has no cause on this machine; a connection that breaks has.
        let is_lost = status.code() == Code::Unavailable || status.source().is_some();
        if is_lost {
            BuildError::unavailable("the container engine was lost during the build")
                .hint("start it again; what it had built is not built again")
        } else {
            BuildError::failed("the container engine cannot build the image")
        }
        .caused_by(&said)
    })
}

/// The error of a cache in a folder that cannot be used.
fn uncached(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot use a cache of type `local`")
        .field("builder_options")
        .caused_by(error)
}

/// Who builds.
pub(crate) enum Maker {
    Buildkit(Buildkit),
    Podman(Endpoint),
}

/// What an image starts from.
pub(crate) enum From {
    /// An image that whoever builds knows.
    Known(String),
    /// An image of the store.
    Lent(Descriptor),
}

impl Local {
    /// Builds, and brings the image where it should go.
    pub(crate) async fn make(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let maker = self.ready(plan, cx).await?;
        // Nobody removes what is lent or taken meanwhile.
        let _lock = self.delivery().lock().await?;
        if plan.platforms.len() > 1 {
            return self.make_several(&maker, plan, cx).await;
        }
        let from = self.base(plan, cx, None).await?;
        let (taken, answer) = self.make_one(&maker, from, plan, cx).await?;
        self.finish(plan, cx, taken, &maker, &answer).await
    }

    /// Who builds, if they can build this and bring it where it should go.
    pub(crate) async fn ready(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Maker, BuildError> {
        let zstd = cx.settings.compression() == Compression::Zstd;
        if zstd && self.options.buildkit.is_none() {
            let message = "the engine compresses as it likes: `--compression zstd`";
            return Err(BuildError::input(message)
                .field("compression")
                .hint("leave it out, or choose `--builder native`, which can"));
        }
        if plan.platforms.len() > 1 && *cx.output == Output::Docker {
            let message = "an engine is loaded with the image of one platform";
            return Err(BuildError::input(message)
                .field("platform")
                .hint("name one of them with `--platform`, or `--output store`, or a registry"));
        }
        let maker = self.maker().await?;
        self.can_run(&maker, plan).await?;
        Ok(maker)
    }

    /// Has an image of one platform built. Returns it where it was sent here, and what whoever built it says of it.
    pub(crate) async fn make_one(
        &self,
        maker: &Maker,
        from: From,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<(Option<Descriptor>, HashMap<String, String>), BuildError> {
        let start = match &from {
            From::Known(reference) => reference,
            From::Lent(_) => OWN_BASE,
        };
        let site = Site {
            host: &self.host,
            archive: &self.options.archive,
            dialect: Dialect::Buildkit,
            uv: None,
        };
        let Lowered {
            file,
            tree,
            doorman,
            secrets,
            proxies,
        } = lower(site, plan, cx, Start::Image(start)).await?;
        let caches = Caches::of(&self.options.cache_from, &self.options.cache_to);
        let caches = caches.map_err(|error| uncached(&error))?;
        let mut order = self.order(plan, cx, proxies);
        (order.cache_from, order.cache_to) = (caches.from, caches.to);
        let mut base = None;
        if let From::Lent(image) = &from {
            let lent = Lent::of(self.store.blobs(), image);
            base = Some(lent.map_err(|error| unwritten(&error))?);
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
            caches: caches.stores,
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
                match maker {
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
        let (answer, _) = solved.map_err(|status| failure(told, &status))?;
        caches::keep(&self.options.cache_to, &answer).map_err(|error| uncached(&error))?;
        Ok((taken.transpose()?, answer))
    }

    /// Brings what was built where it should go: an archive that was taken, or what whoever built has.
    async fn finish(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        taken: Option<Descriptor>,
        maker: &Maker,
        answer: &HashMap<String, String>,
    ) -> Result<BuiltImage, BuildError> {
        match (taken, maker) {
            (Some(taken), _) if *cx.output == Output::Push => {
                deliver::push_taken(self, plan, cx, taken).await
            }
            (Some(taken), _) => deliver::keep(self, plan, cx, taken).await,
            (None, Maker::Buildkit(Buildkit::Daemon(_))) => {
                let digest = answer.get(DIGEST).and_then(|digest| digest.parse().ok());
                deliver::pushed(self, plan, cx, digest).await
            }
            // Whom it trusts and how it logs in is a matter of its own configuration.
            (None, maker)
                if *cx.output == Output::Push
                    && (matches!(maker, Maker::Podman(_)) || plan.registry_config.is_some()) =>
            {
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
        if self.version(&engine).await?.name != PODMAN {
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

    /// What the image starts from, or that of `platform` where it is one of several.
    pub(crate) async fn base(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        platform: Option<&Platform>,
    ) -> Result<From, BuildError> {
        if let Base::Reference { reference } = &plan.base
            && !plan.has_made_base()
        {
            return Ok(From::Known(reference.clone()));
        }
        let base = cx.base.ok_or_else(|| {
            BuildError::failed("the image starts from nothing that is there").field("base_image")
        })?;
        let is_daemon = self.options.buildkit.is_some();
        if !is_daemon && platform.is_none() {
            return Ok(From::Known(base.reference.clone()));
        }
        let kept = self.store.find(&base.reference);
        let kept = kept.map_err(|error| unwritten(&error))?;
        Ok(match (kept, platform) {
            (Some(record), Some(platform)) if !is_daemon => {
                From::Known(self.loaded(&record.descriptor, platform).await?)
            }
            (Some(record), _) => From::Lent(record.descriptor),
            // What is in a registry alone is pulled from there.
            (None, _) => From::Known(base.reference.clone()),
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
        if cx.settings.pull && !plan.has_made_base() && matches!(plan.base, Base::Reference { .. })
        {
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
            exporter: self.exporter(plan, cx),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
        }
    }

    /// What becomes of the result.
    fn exporter(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> (&'static str, HashMap<String, String>) {
        let names = references(cx).join(",");
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
        if *cx.output != Output::Push || plan.registry_config.is_some() {
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
}

#[cfg(test)]
mod tests {
    use imagespec_core::error::ErrorKind;
    use imagespec_core::event::{Progress, Silent};

    use super::*;

    #[test]
    fn an_engine_that_is_lost_is_unavailable() {
        let told = Told::new(Progress::new("x", &Silent), &[], Mask::default());
        let error = failure(told, &Status::unavailable("broken pipe"));
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
}
