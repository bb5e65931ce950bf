//! Images for several platforms: built one by one, and put under one index here.

use std::time::Duration;

use imagespec_core::builder::BuiltImage;
use imagespec_core::context::{BuildContext, Destination, Output};
use imagespec_core::error::BuildError;
use imagespec_core::execute::OWN_BASE;
use imagespec_core::plan::BuildPlan;
use imagespec_core::platform::Platform;
use imagespec_oci::delivery::unwritten;
use imagespec_oci::image::{Descriptor, PlatformObject, write_index};

use crate::backend::Local;
use crate::buildkit::platforms;
use crate::deliver;
use crate::make::Maker;

/// How long an engine may take to forget a name while a person waits for the end.
const FAREWELL: Duration = Duration::from_secs(2);

impl Local {
    /// Refuses platforms whose programs whoever builds cannot run.
    pub(crate) async fn can_run(&self, maker: &Maker, plan: &BuildPlan) -> Result<(), BuildError> {
        if plan.platforms.iter().all(Platform::is_host) {
            return Ok(());
        }
        let Maker::Buildkit(buildkit) = maker else {
            // It would ask a registry for the base that it was loaded with.
            let message = "Podman builds images for its own platform alone";
            return Err(BuildError::input(message)
                .field("platform")
                .hint("name a Docker engine in `DOCKER_HOST`, or choose `--builder native`"));
        };
        let known = platforms(buildkit).await.map_err(|status| {
            let message = "whoever builds does not say which platforms it can run";
            BuildError::unavailable(message).caused_by(&status)
        })?;
        let known: Vec<_> = known
            .into_iter()
            .filter_map(|(os, architecture, variant)| {
                let variant = Some(variant).filter(|variant| !variant.is_empty());
                let object = PlatformObject {
                    architecture,
                    os,
                    variant,
                };
                object.platform()
            })
            .collect();
        let Some(strange) = plan.platforms.iter().find(|wanted| !known.contains(wanted)) else {
            return Ok(());
        };
        let message = format!("whoever builds cannot run programs of `{strange}`");
        Err(BuildError::unavailable(message)
            .field("platform")
            .hint("install an emulator where it runs: on Debian, the packages `qemu-user-static` and `binfmt-support`")
            .hint("`--builder native` needs none, unless something has to be run"))
    }

    /// Builds the image of each platform, and brings their index where it should go.
    pub(crate) async fn make_several(
        &self,
        maker: &Maker,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let mut images = Vec::new();
        for platform in &plan.platforms {
            let one = BuildPlan {
                platforms: vec![platform.clone()],
                image_id: Some(plan.image_id()),
                ..plan.clone()
            };
            let destination = passing(cx, platform);
            let cx = BuildContext {
                output: &Output::Store,
                destination: &destination,
                cancel: cx.cancel.clone(),
                ..*cx
            };
            let from = self.base(plan, &cx, Some(platform)).await?;
            let (taken, _) = self.make_one(maker, from, &one, &cx).await?;
            let image = if let Some(taken) = taken {
                taken
            } else {
                let taken = deliver::take_out(self, &cx).await;
                self.engine()?.remove(&destination.reference()).await?;
                taken?
            };
            images.push(Descriptor {
                platform: Some(platform.into()),
                ..image
            });
        }
        let index = write_index(self.store.blobs(), &images).map_err(|error| unwritten(&error))?;
        if *cx.output == Output::Push {
            deliver::push_taken(self, plan, cx, index).await
        } else {
            deliver::keep(self, plan, cx, index).await
        }
    }

    /// Takes away what a build for several platforms that was given up calls its images in the engine.
    pub(crate) async fn give_up_several(&self, plan: &BuildPlan, cx: &BuildContext<'_>) {
        let Ok(engine) = self.engine() else { return };
        for platform in &plan.platforms {
            let name = passing(cx, platform).reference();
            // There may be none, and an engine that is gone has other worries.
            let _ = tokio::time::timeout(FAREWELL, engine.remove(&name)).await;
        }
    }

    /// The name under which the engine has a base of the store for one of several platforms. It is loaded now if it is not
    /// there: an engine knows an image by its name, and a name has one platform.
    pub(crate) async fn loaded(
        &self,
        base: &Descriptor,
        platform: &Platform,
    ) -> Result<String, BuildError> {
        let digest: String = base.digest.hex().chars().take(32).collect();
        let name = format!("{OWN_BASE}:{digest}-{}", word(platform));
        let engine = self.engine()?;
        if engine.find(&name).await?.is_none() {
            let blobs = self.store.blobs();
            let names = std::slice::from_ref(&name);
            engine.load(blobs, base, platform, names).await?;
        }
        Ok(name)
    }
}

/// What an engine calls the image of one of several platforms, for as long as it is taken out.
fn passing(cx: &BuildContext<'_>, platform: &Platform) -> Destination {
    Destination {
        tag: format!("{}-{}", cx.destination.tag, word(platform)),
        extra_tags: Vec::new(),
        ..cx.destination.clone()
    }
}

/// A platform as part of a tag.
fn word(platform: &Platform) -> String {
    let variant = platform.variant.iter().map(String::as_str);
    let parts: Vec<_> = std::iter::once(platform.architecture.as_str())
        .chain(variant)
        .collect();
    parts.join("-")
}
