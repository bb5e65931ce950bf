//! What is about the cluster of builder `kaniko` alone.

use std::path::{Path, PathBuf};

use imagespec_builder_kaniko::{ENTRY, Inside, no_registry};
use imagespec_core::builder::BuilderConfig;
use imagespec_core::context::{BuildSettings, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::event::Silent;
use imagespec_core::registry::Registry;
use serde_json::{Map, Value, json};

use super::resolve::ResolvedTarget;
use super::{Context, builders};
use crate::interrupt;
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

/// Is the executor in a pod.
pub(super) async fn execute(
    cx: &Context,
    context: PathBuf,
    lent: PathBuf,
    work: PathBuf,
) -> Result<u8, BuildError> {
    let (cancel, watch) = interrupt::watch();
    let inside = Inside {
        context: (context != Path::new("-")).then_some(context),
        lent,
        work,
    };
    let registry = Registry::linked()?;
    let went_well = imagespec_builder_kaniko::execute(&inside, &registry, cx.host.clone(), cancel);
    let went_well = Box::pin(went_well).await;
    watch.abort();
    Ok(u8::from(!went_well))
}

/// Gets a build context, in a pod.
pub(super) async fn fetch(
    cx: &Context,
    url: &Path,
    digest: &Digest,
    to: &Path,
) -> Result<u8, BuildError> {
    imagespec_builder_kaniko::fetch(&cx.host, url, digest, to).await?;
    Ok(0)
}

/// Prints the manifests of targets, as one list.
pub(super) async fn plan(cx: &Context, targets: &[ResolvedTarget]) -> Result<(), BuildError> {
    let settings = BuildSettings::default();
    let mut items = Vec::new();
    for target in targets {
        let resolved = &target.resolved;
        let build = target.context(&Output::Push, &settings, &Silent);
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
