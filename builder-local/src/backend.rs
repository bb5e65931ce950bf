//! The entry under which the builder is known, and what it says of itself.

use std::sync::Arc;

use async_trait::async_trait;
use imagespec_core::builder::{Availability, Builder, BuilderConfig, BuiltImage, CapabilitySet};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::error::BuildError;
use imagespec_core::plan::BuildPlan;
use imagespec_core::registry::BuilderEntry;

/// How the builder presents itself.
pub const ENTRY: BuilderEntry = BuilderEntry {
    name: "default",
    aliases: &["local", "docker"],
    summary: "a container engine of this machine",
    fallback: Some("native"),
    options: &[],
    create,
};

imagespec_core::register_builder!(ENTRY);

/// The builder. It drives no engine in this version, says so when it is probed, and can do nothing, so that
/// `native` takes over wherever the builder was not asked for by flag.
#[derive(Debug)]
pub struct Engine(());

const REASON: &str = "this version drives no container engine";
const HINT: &str = "leave the builder open, or choose `--builder native`, which needs no engine";

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    match config.options.keys().next() {
        None => Ok(Arc::new(Engine(()))),
        Some(option) => Err(BuildError::input(format!(
            "builder `default` has no option: `{option}`"
        ))
        .field("builder_options")),
    }
}

#[async_trait]
impl Builder for Engine {
    fn capabilities(&self) -> CapabilitySet {
        CapabilitySet::new()
    }

    async fn probe(&self) -> Availability {
        Availability::Missing {
            reason: REASON.to_owned(),
            hint: HINT.to_owned(),
        }
    }

    async fn find(
        &self,
        _: &BuildPlan,
        _: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        Err(BuildError::unavailable(REASON).hint(HINT))
    }

    async fn build(&self, _: &BuildPlan, _: &BuildContext<'_>) -> Result<BuiltImage, BuildError> {
        Err(BuildError::unavailable(REASON).hint(HINT))
    }

    fn local_output(&self) -> Output {
        Output::Docker
    }
}
