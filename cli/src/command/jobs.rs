//! Targets into jobs: resolved, base images before what starts from them.

use std::sync::Arc;

use imagespec_core::builder::BuilderConfig;
use imagespec_core::context::{BuildSettings, Output};
use imagespec_core::deployment::Deployment;
use imagespec_core::error::BuildError;
use imagespec_core::execute::{Candidate, Job};
use imagespec_core::registry::Registry;
use imagespec_core::resolve::{ResolveContext, Resolved, resolve};
use serde_json::{Map, Value};

use super::Context;
use crate::args::{HowArgs, ResolveArgs};
use crate::load::Target;

/// A target and what it means.
pub(crate) struct Meant {
    pub(crate) name: String,
    pub(crate) resolved: Resolved,
    pub(crate) base: Option<Box<Meant>>,
}

/// Resolves the images asked for, and those they start from.
pub(crate) fn meant(
    cx: &Context,
    names: &[String],
    args: &ResolveArgs,
) -> Result<Vec<Meant>, BuildError> {
    let chosen = args
        .deployment
        .as_deref()
        .or_else(|| cx.host.variable("IMAGESPEC_DEPLOYMENT"));
    let deployment = cx.project.deployment(chosen)?;
    cx.project
        .targets(names)?
        .into_iter()
        .map(|target| one(cx, target, args, &deployment))
        .collect()
}

fn one(
    cx: &Context,
    target: Target,
    args: &ResolveArgs,
    deployment: &Deployment,
) -> Result<Meant, BuildError> {
    let base = target
        .base
        .map(|base| one(cx, *base, args, deployment))
        .transpose()?;
    let resolve_cx = ResolveContext {
        deployment,
        folder: &target.folder,
        spec_folder: target.spec_folder.as_deref(),
        default_name: &target.default_name,
        base: base.as_ref().map(|base| &base.resolved),
        builder_flag: args.builder.as_deref(),
        builder_variable: cx.host.variable("IMAGESPEC_BUILDER"),
        registry: args
            .registry
            .as_deref()
            .or_else(|| cx.host.variable("IMAGESPEC_REGISTRY")),
        platforms: Some(args.platform.as_slice()).filter(|platforms| !platforms.is_empty()),
        extra_tags: &args.tags,
        tag_scheme: args.tag_scheme,
    };
    let resolved = resolve(&target.spec, &resolve_cx).map_err(|error| {
        error.context(format!("the image `{}` is not declared well", target.name))
    })?;
    Ok(Meant {
        name: target.name,
        resolved,
        base: base.map(Box::new),
    })
}

/// The jobs that build what was asked for: one a target, in their order, and before them those of base images.
/// Also says which jobs are the targets'.
pub(crate) fn jobs(
    cx: &Context,
    meant: Vec<Meant>,
    how: &HowArgs,
    args: &ResolveArgs,
    output: Option<&Output>,
) -> Result<(Vec<Job>, Vec<usize>), BuildError> {
    let registry = Registry::linked()?;
    let mut planner = Planner {
        cx,
        registry: &registry,
        how,
        args,
        jobs: Vec::new(),
    };
    let targets = meant
        .into_iter()
        .map(|meant| planner.add(meant, output))
        .collect::<Result<_, _>>()?;
    Ok((planner.jobs, targets))
}

struct Planner<'a> {
    cx: &'a Context,
    registry: &'a Registry,
    how: &'a HowArgs,
    args: &'a ResolveArgs,
    jobs: Vec<Job>,
}

impl Planner<'_> {
    fn add(&mut self, meant: Meant, output: Option<&Output>) -> Result<usize, BuildError> {
        // A base goes where the builder keeps images, whatever becomes of what starts from it.
        let kept = output.filter(|output| !matches!(output, Output::OciDir(_) | Output::Tar(_)));
        let base = meant.base.map(|base| self.add(*base, kept)).transpose()?;
        let Resolved {
            builder: (name, by_flag),
            destination,
            plan,
            files,
            secrets,
            mut builder_options,
        } = meant.resolved;
        for (key, value) in &self.args.options {
            builder_options.insert(key.clone(), Value::String(value.clone()));
        }
        let entry = self.registry.get(&name)?;
        let takes_over = entry.fallback.filter(|_| !by_flag && !self.how.no_fallback);
        // Options are one builder's; whoever takes over gets those it knows.
        let fallback = takes_over.map(|name| {
            let known = self.registry.get(name)?.options;
            let options = builder_options
                .iter()
                .filter(|(key, _)| known.iter().any(|(known, _)| known == key));
            self.candidate(
                name,
                &options
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            )
        });
        let builder = self.candidate(&name, &builder_options)?;
        let how = self.how;
        let settings = BuildSettings {
            force: how.force,
            pull: how.pull,
            locked: false,
            compression: how.compression.unwrap_or_default(),
            bytecode: !how.no_bytecode,
            labels: how.labels.iter().cloned().collect(),
            jobs: how
                .jobs
                .map_or_else(|| BuildSettings::default().jobs, usize::from),
        };
        self.jobs.push(Job {
            target: meant.name,
            plan,
            destination,
            output: output.cloned(),
            files,
            secrets,
            settings,
            builder,
            fallback: fallback.transpose()?,
            base,
        });
        Ok(self.jobs.len() - 1)
    }

    fn candidate(&self, name: &str, options: &Map<String, Value>) -> Result<Candidate, BuildError> {
        let entry = self.registry.get(name)?;
        let builder: Arc<_> = (entry.create)(BuilderConfig {
            host: &self.cx.host,
            options,
        })?;
        Ok(Candidate {
            name: entry.name,
            builder,
        })
    }
}
