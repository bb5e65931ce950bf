//! Targets into what they mean.

use imagespec_core::context::{BuildContext, BuildSettings, Output};
use imagespec_core::deployment::Deployment;
use imagespec_core::error::BuildError;
use imagespec_core::event::{EventSink, Progress};
use imagespec_core::files::DigestCache;
use imagespec_core::resolve::{Coded, ResolveContext, Resolved, resolve_with};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::args::ResolveArgs;
use crate::env;
use crate::load::{Reading, Target};

/// Digests of files by what their metadata says, in the cache.
const DIGESTS: &str = "files-v1";

/// A target and what it means.
#[derive(Debug)]
pub(crate) struct ResolvedTarget {
    /// What the person calls it.
    pub(crate) name: String,
    /// What it means.
    pub(crate) resolved: Resolved,
    /// The image it starts from, where that is another one of ours.
    pub(crate) base: Option<Box<ResolvedTarget>>,
}

impl ResolvedTarget {
    /// What a builder needs beside the plan, for whoever asks one without the pipeline. Nothing cancels it.
    pub(crate) fn context<'a>(
        &'a self,
        output: &'a Output,
        settings: &'a BuildSettings,
        sink: &'a dyn EventSink,
    ) -> BuildContext<'a> {
        BuildContext {
            output,
            destination: &self.resolved.destination,
            files: &*self.resolved.files,
            base: None,
            secrets: &self.resolved.secrets,
            logins: &self.resolved.logins,
            settings,
            progress: Progress::new(&self.name, sink),
            cancel: CancellationToken::new(),
        }
    }
}

/// Resolves the images asked for, and those they start from. `tags` are further ones for each image asked for.
pub(crate) fn resolve_targets(
    cx: &Context,
    names: &[String],
    args: &ResolveArgs,
    tags: &[String],
) -> Result<Vec<ResolvedTarget>, BuildError> {
    let reading = reading(cx, args);
    resolve_these(cx, cx.project.targets(names, reading)?, args, tags)
}

/// How the flags have code read.
pub(super) fn reading<'a>(cx: &'a Context, args: &ResolveArgs) -> Reading<'a> {
    Reading {
        via: args.via,
        variables: &cx.host.variables,
        fast: true,
    }
}

/// The active deployment.
pub(super) fn deployment(cx: &Context, args: &ResolveArgs) -> Result<Deployment, BuildError> {
    let chosen = args.deployment.as_deref();
    cx.project
        .deployment(chosen.or_else(|| cx.variable(env::DEPLOYMENT)))
}

/// Resolves targets, and what they start from.
pub(super) fn resolve_these(
    cx: &Context,
    targets: Vec<Target>,
    args: &ResolveArgs,
    tags: &[String],
) -> Result<Vec<ResolvedTarget>, BuildError> {
    let deployment = deployment(cx, args)?;
    let digests = DigestCache::load(&cx.host.cache_dir.join(DIGESTS));
    let resolved = targets
        .into_iter()
        .map(|target| resolve_target(cx, target, args, tags, &deployment, &digests))
        .collect();
    // A cache that cannot be written costs time and nothing else.
    let _ = digests.save();
    resolved
}

fn resolve_target(
    cx: &Context,
    target: Target,
    args: &ResolveArgs,
    tags: &[String],
    deployment: &Deployment,
    digests: &DigestCache,
) -> Result<ResolvedTarget, BuildError> {
    let base = target
        .base
        .map(|base| resolve_target(cx, *base, args, &[], deployment, digests))
        .transpose()?;
    let resolve_cx = ResolveContext {
        deployment,
        folder: &target.folder,
        spec_folder: target.spec_folder.as_deref(),
        default_name: &target.default_name,
        base: base.as_ref().map(|base| &base.resolved),
        builder_flag: args.builder.as_deref(),
        builder_variable: cx.variable(env::BUILDER),
        registry: args
            .registry
            .as_deref()
            .or_else(|| cx.variable(env::REGISTRY)),
        platforms: Some(args.platform.as_slice()).filter(|platforms| !platforms.is_empty()),
        extra_tags: tags,
        tag_scheme: args.tag_scheme,
        code: target.code.as_ref().map(|code| Coded {
            named: code.named.as_ref(),
            loaded: code.loaded.as_deref(),
            sdk: &code.sdk,
        }),
    };
    let resolved = resolve_with(&target.spec, &resolve_cx, digests);
    let mut resolved = resolved.map_err(|error| {
        let what = error.unnamed_field().map_or_else(
            || "image".to_owned(),
            |field| format!("`{field}` of the image"),
        );
        error.context(format!("invalid {what}: `{}`", target.name))
    })?;
    let given = args.options.iter();
    let given = given.map(|(key, value)| (key.clone(), Value::String(value.clone())));
    resolved.builder_options.extend(given);
    Ok(ResolvedTarget {
        name: target.name,
        resolved,
        base: base.map(Box::new),
    })
}
