//! The entry under which the builder is known, and what it says of itself.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use imagespec_core::builder::{
    Availability, Builder, BuilderConfig, BuiltImage, Capability, CapabilitySet,
};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::plan::BuildPlan;
use imagespec_core::registry::BuilderEntry;
use imagespec_oci::engine::{Endpoint, EngineError, EngineVersion};
use imagespec_oci::images::ImageStore;
use imagespec_oci::{Delivery, Engine};
use tokio::sync::OnceCell;

use crate::buildkit::version;
use crate::deliver;
use crate::options::{OPTIONS, Options};

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
pub(crate) const PODMAN: &str = "Podman";
/// The oldest Podman whose builds are lent files and secrets.
const OLDEST_PODMAN: u32 = 4;
/// What helps where the engine's disk is full.
const FULL: &str =
    "where it is the engine's disk, `docker system prune` removes what no container uses";
/// How long a daemon may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// The builder.
#[derive(Debug)]
pub struct Local {
    pub(crate) host: Host,
    pub(crate) options: Options,
    pub(crate) store: ImageStore,
    /// What the engine is, once it was asked.
    version: OnceCell<EngineVersion>,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    Ok(Arc::new(Local {
        host: config.host.clone(),
        options: Options::read(config.options)?,
        store: ImageStore::open(&config.host.cache_dir),
        version: OnceCell::new(),
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

    /// What the engine is.
    pub(crate) async fn version(&self, engine: &Engine) -> Result<&EngineVersion, EngineError> {
        self.version.get_or_try_init(|| engine.version()).await
    }

    /// Where its images are looked for and brought to.
    pub(crate) fn delivery(&self) -> Delivery<'_> {
        Delivery {
            host: &self.host,
            store: &self.store,
            builder: ENTRY.name,
        }
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

#[async_trait]
impl Builder for Local {
    fn capabilities(&self) -> CapabilitySet {
        CapabilitySet::from([
            Capability::BaseDebian,
            Capability::BaseImage,
            Capability::BaseReference,
            Capability::PythonExec,
            Capability::AptPackages,
            Capability::CondaPackages,
            Capability::PythonPackages,
            Capability::RuntimePackages,
            Capability::RegistryConfig,
            Capability::Run,
            Capability::Secrets,
            Capability::HelperImages,
            Capability::ForeignPlatform,
            Capability::MultiPlatform,
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
            let version = self.version(&engine).await?;
            Ok::<_, EngineError>((version, engine))
        };
        match found.await {
            Ok((version, engine)) => {
                let place = format!("`{}`, {}", engine.address(), engine.endpoint().source());
                match unable(version) {
                    Some((reason, hint)) => Availability::Missing {
                        reason: format!("{reason} (at {place})"),
                        hint: hint.to_owned(),
                    },
                    None => Availability::Ready {
                        detail: format!("{} {} at {place}", version.name, version.version),
                    },
                }
            }
            // Why is in the address already, as people read it, but where another machine says so.
            Err(error) => {
                let error = BuildError::from(error);
                if self
                    .engine()
                    .is_ok_and(|engine| engine.endpoint().is_over_ssh())
                {
                    return Availability::missing(&error);
                }
                Availability::missing(&BuildError {
                    source: None,
                    ..error
                })
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
        let is_over = self.options.buildkit.is_none() && cx.cancel.is_cancelled();
        if is_over && plan.platforms.len() > 1 {
            self.give_up_several(plan, cx).await;
        }
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

    async fn base_output(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<Output>, BuildError> {
        self.ready(plan, cx).await?;
        // An engine is given those of several platforms one by one.
        Ok(Some(match plan.platforms.len() {
            0 | 1 => self.local_output(),
            _ => Output::Store,
        }))
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
