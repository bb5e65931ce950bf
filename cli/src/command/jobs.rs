//! What targets mean into jobs: base images before what starts from them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use imagespec_core::builder::BuilderConfig;
use imagespec_core::context::{BuildSettings, Output};
use imagespec_core::error::BuildError;
use imagespec_core::execute::{Below, Candidate, Job, OnUnknown, Options, in_image};
use imagespec_core::host::{Host, RegistrySettings};
use imagespec_core::registries;
use imagespec_core::registry::Registry;
use imagespec_core::resolve::Resolved;
use serde_json::{Map, Value};

use super::Context;
use super::resolve::ResolvedTarget;
use crate::args::HowArgs;
use crate::{builders, env};

/// What is handed to the pipeline.
#[derive(Debug)]
pub(crate) struct Work {
    /// The jobs, those of base images before the jobs that start from them.
    pub(crate) jobs: Vec<Job>,
    /// Which jobs are the targets', in the order of the targets.
    pub(crate) targets: Vec<usize>,
    /// How the pipeline runs.
    pub(crate) options: Options,
}

/// The work of building what was asked for.
pub(crate) fn work(
    cx: &Context,
    resolved: Vec<ResolvedTarget>,
    how: &HowArgs,
    output: Option<&Output>,
    dry_run: bool,
) -> Result<Work, BuildError> {
    if how.locked {
        let message =
            "`--locked` asks for what imagespec.lock pins, and this version reads no lock";
        return Err(BuildError::input(message).hint(
            "pin versions in the spec's `requirements`, for instance with a `uv.lock`, and leave it out",
        ));
    }
    let settings = settings(cx, how);
    let fail_fast = cx.variable(env::FAST_FAIL).is_some_and(env::says_yes);
    let options = Options {
        jobs: settings.jobs,
        on_unknown: if fail_fast {
            OnUnknown::Fail
        } else {
            how.on_unknown
        },
        dry_run,
    };
    let mut planner = Planner {
        cx,
        registry: Registry::linked()?,
        may_fall_back: !how.no_fallback,
        push: cx.variable(env::PUSH).is_none_or(env::says_push),
        settings,
        candidates: Vec::new(),
        jobs: Vec::new(),
    };
    let targets = resolved
        .into_iter()
        .map(|target| planner.add(target, output))
        .collect::<Result<_, _>>()?;
    Ok(Work {
        jobs: planner.jobs,
        targets,
        options,
    })
}

/// How images are built, as flags and variables say.
pub(super) fn settings(cx: &Context, how: &HowArgs) -> BuildSettings {
    let default = BuildSettings::default();
    BuildSettings {
        force: how.force || cx.variable(env::FORCE).is_some_and(env::says_yes),
        pull: how.pull,
        locked: how.locked,
        compression: how.compression,
        bytecode: match (how.bytecode, how.no_bytecode) {
            (_, true) => Some(false),
            (true, _) => Some(true),
            _ => None,
        },
        labels: how.labels.iter().cloned().collect(),
        jobs: how.jobs.map_or(default.jobs, usize::from),
    }
}

/// Settings of single registries.
type Registries = BTreeMap<String, RegistrySettings>;

/// What a builder is made with.
struct Made {
    options: Map<String, Value>,
    registries: Registries,
}

/// This machine, with what an image says of registries. That counts before what files say for all images.
fn host_with(cx: &Context, registries: Registries) -> Cow<'_, Host> {
    if registries.is_empty() {
        return Cow::Borrowed(&cx.host);
    }
    let mut host = cx.host.clone();
    host.registries.extend(registries);
    Cow::Owned(host)
}

struct Planner<'a> {
    cx: &'a Context,
    registry: Registry,
    may_fall_back: bool,
    push: bool,
    settings: BuildSettings,
    /// Builders by what they are made with, so that each is made, and probed, once.
    candidates: Vec<(Made, Candidate)>,
    jobs: Vec<Job>,
}

impl Planner<'_> {
    /// Adds the job of a target after that of its base, and returns its index.
    fn add(
        &mut self,
        target: ResolvedTarget,
        output: Option<&Output>,
    ) -> Result<usize, BuildError> {
        // A base goes where the builder keeps images, whatever becomes of what starts from it.
        let kept = output.filter(|output| !matches!(output, Output::OciDir(_) | Output::Tar(_)));
        let base = target.base.map(|base| self.add(*base, kept)).transpose()?;
        let Resolved {
            builder: (name, by_flag),
            destination,
            plan,
            files,
            secrets,
            registry_config,
            logins,
            builder_options,
            flytekit: _,
        } = target.resolved;
        let registries = registry_config.as_deref().map(registries::read);
        let registries = registries
            .transpose()
            .map_err(|error| in_image(&target.name, error))?;
        let registries = registries.unwrap_or_default();
        let entry = builders::find(&self.registry, &self.cx.host, &name)?;
        let fallback = entry.fallback.filter(|_| self.may_fall_back && !by_flag);
        let linked = |name: &&str| self.registry.get(name).is_ok();
        let base_maker = entry.base_maker.filter(linked);
        let other = |planner: &mut Self, name: Option<&str>| {
            name.map(|name| planner.other(name, &builder_options, &registries))
                .transpose()
        };
        let job = Job {
            target: target.name,
            plan,
            destination,
            output: output.cloned(),
            push: self.push,
            files,
            secrets,
            logins,
            settings: self.settings.clone(),
            fallback: other(self, fallback)?,
            base_maker: other(self, base_maker)?,
            builder: self.candidate(&name, builder_options, registries.clone())?,
            base: base.map(Below::Job),
        };
        self.jobs.push(job);
        Ok(self.jobs.len() - 1)
    }

    /// Whoever takes over or helps. Options are one builder's: this one gets those it knows.
    fn other(
        &mut self,
        name: &str,
        options: &Map<String, Value>,
        registries: &Registries,
    ) -> Result<Candidate, BuildError> {
        let known = self.registry.get(name)?.options;
        let options = options
            .iter()
            .filter(|(key, _)| known.iter().any(|(known, _)| known == key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.candidate(name, options, registries.clone())
    }

    fn candidate(
        &mut self,
        name: &str,
        options: Map<String, Value>,
        registries: Registries,
    ) -> Result<Candidate, BuildError> {
        let entry = builders::find(&self.registry, &self.cx.host, name)?;
        let made = self.candidates.iter().find(|(made, candidate)| {
            candidate.name == entry.name && made.options == options && made.registries == registries
        });
        if let Some((_, candidate)) = made {
            return Ok(candidate.clone());
        }
        let host = host_with(self.cx, registries.clone());
        let builder: Arc<_> = (entry.create)(BuilderConfig {
            name: entry.name,
            host: &host,
            options: &options,
        })?;
        let candidate = Candidate {
            name: entry.name,
            builder,
        };
        let made = Made {
            options,
            registries,
        };
        self.candidates.push((made, candidate.clone()));
        Ok(candidate)
    }
}
