//! What is about the cluster of builder `kaniko` alone.

use imagespec_builder_kaniko::{ENTRY, no_registry};
use imagespec_core::builder::BuilderConfig;
use imagespec_core::context::{BuildContext, BuildSettings, Output};
use imagespec_core::error::BuildError;
use imagespec_core::event::{Progress, Silent};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::resolve::ResolvedTarget;
use super::{Context, builders};
use crate::report::{print, print_json};

/// Removes what others left in the cluster, and prints a line a Job.
pub(super) async fn prune(cx: &Context, all: bool) -> Result<u8, BuildError> {
    let options = builders::options(cx)?;
    let none = Map::new();
    let options = options.get(ENTRY.name).unwrap_or(&none);
    for (job, image) in imagespec_builder_kaniko::prune(config(cx, options), all).await? {
        print(&format!("{job} {image}"))?;
    }
    Ok(0)
}

/// Prints the manifests of targets, as one list.
pub(super) async fn plan(cx: &Context, targets: &[ResolvedTarget]) -> Result<(), BuildError> {
    let settings = BuildSettings::default();
    let mut items = Vec::new();
    for target in targets {
        let resolved = &target.resolved;
        let build = BuildContext {
            output: &Output::Push,
            destination: &resolved.destination,
            files: &*resolved.files,
            base: None,
            secrets: &resolved.secrets,
            logins: &resolved.logins,
            settings: &settings,
            progress: Progress::new(&target.name, &Silent),
            cancel: CancellationToken::new(),
        };
        if resolved.destination.registry.is_none() {
            return Err(no_registry());
        }
        let options = config(cx, &resolved.builder_options);
        let made = imagespec_builder_kaniko::manifests(options, &resolved.plan, &build).await;
        items
            .extend(made.map_err(|error| error.context(format!("cannot plan `{}`", target.name)))?);
    }
    print_json(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

fn config<'a>(cx: &'a Context, options: &'a Map<String, Value>) -> BuilderConfig<'a> {
    BuilderConfig {
        name: ENTRY.name,
        host: &cx.host,
        options,
    }
}
