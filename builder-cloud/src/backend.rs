//! The entry under which the builder is known, and what it does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use imagespec_build_api::Wanted;
use imagespec_core::builder::{
    Availability, Builder, BuilderConfig, BuiltImage, Capability, CapabilitySet,
};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::error::BuildError;
use imagespec_core::event::{EventSink, Progress};
use imagespec_core::host::Host;
use imagespec_core::plan::BuildPlan;
use imagespec_core::registry::BuilderEntry;
use tokio_util::sync::CancellationToken;

use crate::options::{OPTIONS, OnInterrupt, Options};
use crate::remote::{Remote, Submitted};
use crate::wire::Wire;
use crate::{follow, send};

/// How the builder presents itself.
pub const ENTRY: BuilderEntry = BuilderEntry {
    name: "union",
    aliases: &["cloud"],
    summary: "a remote build service",
    fallback: None,
    base_maker: None,
    options: OPTIONS,
    create,
};

imagespec_core::register_builder!(ENTRY);

/// How often files are sent again that went away between their upload and the request.
const TRIES: usize = 3;
/// How long a build may take to stop that was asked to.
const STOPPING: Duration = Duration::from_secs(8);

/// The builder.
#[derive(Debug)]
pub struct Union {
    host: Host,
    options: Options,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    Ok(Arc::new(Union::new(config)?))
}

/// A build that a service was asked for.
struct Asked {
    id: String,
    created: bool,
}

impl Union {
    fn new(config: BuilderConfig<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            host: config.host.clone(),
            options: Options::read(config.host, config.options)?,
        })
    }

    async fn remote(&self) -> Result<Wire, BuildError> {
        Wire::new(&self.host, &self.options).await
    }

    /// Sends what the service lacks, and asks for the build.
    async fn ask(
        &self,
        remote: &dyn Remote,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Asked, BuildError> {
        let wanted = wanted(plan, cx, &self.options)?;
        for _ in 0..TRIES {
            let sending = send::files(remote, plan, cx);
            let sent = cx.cancel.run_until_cancelled(sending).await;
            sent.unwrap_or_else(|| Err(BuildError::interrupted()))?;
            // A request that is on its way is waited for: whoever does not know its id cannot stop it.
            if let Submitted::Accepted { id, created } = remote.submit(&wanted).await? {
                return Ok(Asked { id, created });
            }
        }
        Err(BuildError::unavailable(
            "the build service loses files of the build context",
        ))
    }

    /// Follows a build until it is over, or the person has enough.
    async fn follow(
        &self,
        remote: &dyn Remote,
        asked: &Asked,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, BuildError> {
        let following = follow::follow(remote, &asked.id, progress);
        tokio::pin!(following);
        tokio::select! {
            build = &mut following => return follow::image(build?),
            () = cancel.cancelled() => {}
        }
        let id = &asked.id;
        let detaches = match self.options.on_interrupt {
            // Whoever joined a build of others leaves it alone.
            _ if !asked.created => true,
            OnInterrupt::Detach => true,
            OnInterrupt::Cancel => false,
            OnInterrupt::Ask => {
                let question = format!("interrupted; build `{id}` runs at the service");
                let ways = [('c', "cancel it"), ('d', "detach, and leave it running")];
                tokio::task::block_in_place(|| progress.ask(&question, &ways)) == Some('d')
            }
        };
        if detaches {
            progress.notice(format!(
                "the build goes on; `imagespec build --attach {id}` follows it"
            ));
            return Err(BuildError::interrupted());
        }
        let stopping = async {
            if let Err(error) = remote.cancel(id).await {
                progress.notice(format!("the build may go on: {error}"));
                return;
            }
            // What it still says is of interest; how it ends is known.
            let _ = following.await;
        };
        let _ = tokio::time::timeout(STOPPING, stopping).await;
        Err(BuildError::interrupted())
    }
}

/// What is asked for. What would have to travel and must not is refused.
fn wanted(
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    options: &Options,
) -> Result<Wanted, BuildError> {
    if !cx.secrets.is_empty() {
        let message = "a secret file of this machine does not travel to the build service";
        return Err(BuildError::input(message)
            .field("pip_secret_mounts")
            .hint("whoever runs the service can give it to the project, and option `secrets` then names it: `secrets = { netrc = \"/root/.netrc\" }`"));
    }
    if cx.logins.iter().next().is_some() {
        let message = "a login at a package index does not travel to the build service";
        return Err(BuildError::input(message)
            .field("pip_index")
            .hint("leave it out of the URL: whoever runs the service gives it logins of its own"));
    }
    Ok(Wanted {
        image: cx.progress.image().to_owned(),
        plan: plan.clone(),
        destination: cx.destination.clone(),
        base: cx.base.cloned(),
        settings: cx.settings.clone(),
        secrets: options.secrets.clone(),
    })
}

#[async_trait]
impl Builder for Union {
    fn capabilities(&self) -> CapabilitySet {
        // What the service's own builder cannot do it refuses, by name, when it is asked whether the image is there.
        CapabilitySet::from([
            Capability::BaseDebian,
            Capability::BaseImage,
            Capability::BaseReference,
            Capability::PythonExec,
            Capability::AptPackages,
            Capability::CondaPackages,
            Capability::PythonPackages,
            Capability::RuntimePackages,
            Capability::Run,
            Capability::HelperImages,
            Capability::ForeignPlatform,
            Capability::MultiPlatform,
            Capability::OutputPush,
        ])
    }

    async fn probe(&self) -> Availability {
        let asked = async { self.remote().await?.hello().await };
        match asked.await {
            Ok(detail) => Availability::Ready { detail },
            Err(error) => Availability::missing(&error),
        }
    }

    async fn find(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        let wanted = wanted(plan, cx, &self.options)?;
        if !cx.destination.extra_tags.is_empty() {
            // The service gives them to what it finds, too, when it is asked for the image.
            return Ok(None);
        }
        let found = self.remote().await?.find(&wanted).await?;
        Ok(found.map(|image| BuiltImage {
            builder: ENTRY.name.to_owned(),
            ..image
        }))
    }

    async fn build(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let remote = self.remote().await?;
        let asked = self.ask(&remote, plan, cx).await?;
        self.follow(&remote, &asked, cx.progress, &cx.cancel).await
    }

    fn local_output(&self) -> Output {
        Output::Push
    }
}

/// Asks a service for a build, and returns its id without waiting for it.
pub async fn submit(
    config: BuilderConfig<'_>,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<String, BuildError> {
    let union = Union::new(config)?;
    let remote = union.remote().await?;
    Ok(union.ask(&remote, plan, cx).await?.id)
}

/// Follows a build that somebody asked a service for.
pub async fn attach(
    config: BuilderConfig<'_>,
    id: &str,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<BuiltImage, BuildError> {
    let union = Union::new(config)?;
    let remote = union.remote().await?;
    let build = remote.show(id).await?;
    let asked = Asked {
        id: build.id.clone(),
        // Whoever only looks stops nothing.
        created: false,
    };
    let progress = Progress::new(&build.image, sink);
    union.follow(&remote, &asked, progress, cancel).await
}
