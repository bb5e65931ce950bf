//! The entry under which the builder is known, and what it says of itself.

use std::sync::Arc;

use async_trait::async_trait;
use imagespec_core::builder::{
    Availability, Builder, BuilderConfig, BuiltImage, Capability, CapabilitySet,
};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::BuildPlan;
use imagespec_core::registry::BuilderEntry;
use imagespec_debian::ArchiveOptions;
use imagespec_oci::images::ImageStore;
use imagespec_sandbox::Limits;
use serde_json::{Map, Value};

use crate::assemble::Assembly;
use crate::deliver;
use crate::layers::store_error;
use crate::limits;

/// How the builder presents itself.
pub const ENTRY: BuilderEntry = BuilderEntry {
    name: "native",
    aliases: &[],
    summary: "embedded: no daemon, no root, nothing installed",
    fallback: None,
    base_maker: None,
    options: &[
        ArchiveOptions::OPTIONS[0],
        ArchiveOptions::OPTIONS[1],
        limits::OPTIONS[0],
        limits::OPTIONS[1],
        limits::OPTIONS[2],
        limits::OPTIONS[3],
        limits::OPTIONS[4],
    ],
    create,
};

imagespec_core::register_builder!(ENTRY);

/// The builder.
#[derive(Debug)]
pub struct Native {
    pub(crate) host: Host,
    pub(crate) archive: ArchiveOptions,
    pub(crate) limits: Limits,
    pub(crate) store: ImageStore,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    let (archive, limits) = read_options(config.options)?;
    Ok(Arc::new(Native {
        host: config.host.clone(),
        archive,
        limits,
        store: ImageStore::open(&config.host.cache_dir),
    }))
}

fn read_options(options: &Map<String, Value>) -> Result<(ArchiveOptions, Limits), BuildError> {
    let mut archive = ArchiveOptions::default();
    let mut limits = limits::defaults();
    for (name, value) in options {
        let wrong = |expected: &str| ENTRY.wrong_option(name, expected, value);
        if let Some(set) = limits::set(&mut limits, name, value) {
            set.map_err(wrong)?;
            continue;
        }
        let text = value.as_str().ok_or_else(|| wrong("a text"));
        match archive.set(name, text.as_deref().unwrap_or_default()) {
            Some(set) => {
                text?;
                set.map_err(wrong)?;
            }
            None => return Err(ENTRY.unknown_option(name)),
        }
    }
    Ok((archive, limits))
}

#[async_trait]
impl Builder for Native {
    fn capabilities(&self) -> CapabilitySet {
        let mut able = CapabilitySet::from([
            Capability::BaseDebian,
            Capability::BaseImage,
            Capability::BaseReference,
            Capability::PythonExec,
            Capability::AptPackages,
            Capability::CondaPackages,
            Capability::PythonPackages,
            Capability::RuntimePackages,
            Capability::RegistryConfig,
            Capability::Secrets,
            Capability::HelperImages,
            Capability::ForeignPlatform,
            Capability::MultiPlatform,
            Capability::OutputPush,
            Capability::OutputStore,
            Capability::OutputDocker,
            Capability::OutputOciDir,
            Capability::OutputTar,
        ]);
        if cfg!(target_os = "linux") {
            able.insert(Capability::Run);
        }
        able
    }

    async fn probe(&self) -> Availability {
        Availability::Ready {
            detail: "embedded".to_owned(),
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
        // Taken first, so that nothing this build finds is pruned before the image has its name.
        let store = self.store.clone();
        let lock = tokio::task::spawn_blocking(move || store.lock_shared()).await;
        let lock = lock.map_err(std::io::Error::other).and_then(|lock| lock);
        let _lock = lock.map_err(|error| store_error(&error))?;
        let work = async {
            deliver::reach(self, cx).await?;
            if let Some(image) = plan.helper_images.get("uv_image") {
                let message =
                    format!("`native` installs without the uv of an image: `{image}` is not used");
                cx.progress.notice(message);
            }
            let assembly = Assembly::new(self, plan, cx)?;
            match assembly.deliver().await {
                // What was known of the layer is forgotten by now.
                Err(_) if assembly.tally.is_outdated() => {
                    Assembly::new(self, plan, cx)?.deliver().await
                }
                result => result,
            }
        };
        cx.cancel
            .run_until_cancelled(work)
            .await
            .unwrap_or_else(|| Err(BuildError::interrupted()))
    }

    fn local_output(&self) -> Output {
        Output::Store
    }
}
