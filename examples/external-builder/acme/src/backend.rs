//! The builder and the entry under which it is known.

use std::sync::Arc;

use async_trait::async_trait;
use imagespec_builder_native::ENTRY as NATIVE;
use imagespec_core::builder::{Availability, Builder, BuilderConfig, BuiltImage, CapabilitySet};
use imagespec_core::context::{BuildContext, BuildSettings, Output};
use imagespec_core::error::BuildError;
use imagespec_core::plan::BuildPlan;
use imagespec_core::registry::BuilderEntry;
use serde_json::Value;

/// How the builder presents itself.
pub(crate) const ENTRY: BuilderEntry = BuilderEntry {
    name: "acme",
    aliases: &[],
    summary: "native, with the label of who pays",
    fallback: None,
    base_maker: None,
    options: &[("cost_center", "who pays: the label `com.acme.cost-center`")],
    create,
};

/// The builder.
#[derive(Debug)]
struct Acme {
    native: Arc<dyn Builder>,
    cost_center: Option<String>,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    // What is not ours is `native`'s, which refuses what it does not know.
    let mut options = config.options.clone();
    let cost_center = match options.remove("cost_center") {
        None => None,
        Some(Value::String(name)) if !name.is_empty() => Some(name),
        Some(other) => return Err(ENTRY.wrong_option("cost_center", "a name", &other)),
    };
    let native = (NATIVE.create)(BuilderConfig {
        options: &options,
        ..config
    })?;
    Ok(Arc::new(Acme {
        native,
        cost_center,
    }))
}

impl Acme {
    fn settings(&self, cx: &BuildContext<'_>) -> BuildSettings {
        let mut settings = cx.settings.clone();
        if let Some(name) = &self.cost_center {
            let label = ("com.acme.cost-center".to_owned(), name.clone());
            settings.labels.extend([label]);
        }
        settings
    }
}

/// The context with other settings.
fn with<'a>(cx: &BuildContext<'a>, settings: &'a BuildSettings) -> BuildContext<'a> {
    BuildContext {
        settings,
        cancel: cx.cancel.clone(),
        ..*cx
    }
}

#[async_trait]
impl Builder for Acme {
    fn capabilities(&self) -> CapabilitySet {
        self.native.capabilities()
    }

    async fn probe(&self) -> Availability {
        self.native.probe().await
    }

    async fn find(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        // An image without the label is not the one that is asked for.
        self.native.find(plan, &with(cx, &self.settings(cx))).await
    }

    async fn build(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        self.native.build(plan, &with(cx, &self.settings(cx))).await
    }

    async fn tag(&self, image: &BuiltImage, cx: &BuildContext<'_>) -> Result<(), BuildError> {
        self.native.tag(image, &with(cx, &self.settings(cx))).await
    }

    fn local_output(&self) -> Output {
        self.native.local_output()
    }
}
