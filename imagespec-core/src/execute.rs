//! The pipeline over many images: who builds what, base images first, equal images once, several at a time,
//! and nothing that exists already.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::builder::{Availability, Builder, BuiltImage, Capability};
use crate::context::{BuildContext, BuildSettings, ContextFiles, Destination, Output, SecretMount};
use crate::digest::Digest;
use crate::error::{BuildError, ErrorKind};
use crate::event::{BuildEvent, EventSink, Progress, Silent};
use crate::login::IndexLogins;
use crate::plan::{Base, BuildPlan};

/// How much of a digest is in the tag of our own base, in hexadecimal digits: 128 bits.
const OWN_BASE_TAG: usize = 32;
/// Name of our own base where another builder starts from it.
pub const OWN_BASE: &str = "imagespec-base";
/// How long a builder may take to clean up after it was asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// One image to build.
#[derive(Debug, Clone)]
pub struct Job {
    /// What the person calls it, for progress and messages.
    pub target: String,
    /// What is built.
    pub plan: BuildPlan,
    /// What it will be called.
    pub destination: Destination,
    /// Where it goes; `None` for its registry, or without one wherever the builder keeps images.
    pub output: Option<Output>,
    /// Whether an image with a registry goes there where `output` leaves it open; otherwise it stays here.
    pub push: bool,
    /// The files the plan names.
    pub files: Arc<dyn ContextFiles>,
    /// Secrets for the installation of packages.
    pub secrets: Vec<SecretMount>,
    /// Logins of package indexes.
    pub logins: IndexLogins,
    /// How it is built.
    pub settings: BuildSettings,
    /// Who builds it.
    pub builder: Candidate,
    /// Who builds it where that one cannot work here.
    pub fallback: Option<Candidate>,
    /// Who makes our own base for a builder that cannot.
    pub base_maker: Option<Candidate>,
    /// The image this one starts from, where that is another one of ours.
    pub base: Option<Below>,
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// The image of the job of this index.
    Job(usize),
    /// An image that was built before.
    Built(BuiltImage),
}

/// A builder and the name it goes by.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its registered name.
    pub name: &'static str,
    /// The builder.
    pub builder: Arc<dyn Builder>,
}

/// What to do when nobody can tell whether an image exists: `--on-unknown`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// Say so and stop.
    #[default]
    Fail,
    /// Build it.
    Build,
    /// Take it to exist.
    Skip,
}

/// How the pipeline runs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many images may be built at once, at least 1.
    pub jobs: usize,
    /// What to do about images of unknown existence.
    pub on_unknown: OnUnknown,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Done(BuiltImage),
    /// A dry run found it missing, or was told to build it anyway.
    WouldBuild {
        /// `[registry/]name:tag`.
        reference: String,
        /// Name of the builder that would.
        builder: String,
    },
}

/// Checks every job against its builder before any work. The first builder that cannot work here gives way to
/// the job's fallback, if that can do all the plan needs; the [`BuildEvent::Notice`] says so once.
///
/// Then builds what is missing and returns one result a job, in the order of the jobs. A job whose base fails
/// fails with it. Dropping the future stops everything; `cancel` does so politely.
pub async fn execute(
    jobs: &[Job],
    options: Options,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Vec<Result<Outcome, BuildError>> {
    // A builder that looks around may take its time.
    let Some(chosen) = cancel.run_until_cancelled(choose(jobs, sink)).await else {
        return jobs
            .iter()
            .map(|_| Err(BuildError::interrupted()))
            .collect();
    };
    let run = Run {
        jobs,
        options,
        sink,
        cancel,
        permits: Semaphore::new(options.jobs.max(1)),
        chosen,
        same: same(jobs),
        cells: jobs.iter().map(|_| OnceCell::new()).collect(),
        bases: Mutex::default(),
    };
    if let Some(refused) = run.chosen.iter().find_map(|chosen| chosen.as_ref().err()) {
        let refused = refused.clone();
        return run
            .chosen
            .iter()
            .map(|chosen| Err(chosen.as_ref().err().unwrap_or(&refused).clone()))
            .collect();
    }
    join_all((0..jobs.len()).map(|index| run.result(index))).await
}

/// The builder of every job, or why there is none.
async fn choose(jobs: &[Job], sink: &dyn EventSink) -> Vec<Result<Candidate, BuildError>> {
    let mut probed: HashMap<usize, Availability> = HashMap::new();
    let mut told = Vec::new();
    let mut chosen = Vec::with_capacity(jobs.len());
    for job in jobs {
        let candidate = &job.builder;
        let key = Arc::as_ptr(&candidate.builder).cast::<()>().addr();
        let availability = match probed.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(candidate.builder.probe().await),
        };
        let choice = match (&*availability, &job.fallback) {
            (Availability::Ready { .. }, _) => capable(job, candidate).map(|()| candidate.clone()),
            (Availability::Missing { reason, hint }, None) => Err(missing(candidate, reason, hint)),
            (Availability::Missing { reason, hint }, Some(fallback)) => {
                match capable(job, fallback) {
                    Ok(()) => {
                        if !told.contains(&(candidate.name, fallback.name)) {
                            told.push((candidate.name, fallback.name));
                            let message = format!(
                                "builder `{}`: {reason}; using `{}` instead",
                                candidate.name, fallback.name
                            );
                            Progress::new(&job.target, sink).notice(message);
                        }
                        Ok(fallback.clone())
                    }
                    Err(refused) if capable(job, candidate).is_ok() => {
                        let why = format!("`{}` cannot take over: {refused}", fallback.name);
                        Err(missing(candidate, reason, hint).hint(why))
                    }
                    // Nobody could build it: the declaration is to be changed, not the machine.
                    Err(refused) => Err(refused),
                }
            }
        };
        chosen.push(choice.map_err(|error| in_image(&job.target, error)));
    }
    chosen
}

fn missing(candidate: &Candidate, reason: &str, hint: &str) -> BuildError {
    let error = BuildError::unavailable(format!(
        "builder `{}` cannot work here: {reason}",
        candidate.name
    ));
    if hint.is_empty() {
        error
    } else {
        error.hint(hint)
    }
}

/// An error, with the image that it keeps from being built and the field that is why.
pub fn in_image(target: &str, error: BuildError) -> BuildError {
    let message = match error.unnamed_field() {
        Some(field) => format!("cannot build `{target}`, because of `{field}`"),
        None => format!("cannot build `{target}`"),
    };
    error.context(message)
}

/// Refuses what the builder cannot do, by the field that asks for it.
fn capable(job: &Job, candidate: &Candidate) -> Result<(), BuildError> {
    let able = candidate.builder.capabilities();
    let mut required = job.plan.required();
    let output = output(job, candidate);
    required.insert(output_capability(&output), "output");
    if !job.secrets.is_empty() {
        required.insert(Capability::Secrets, "pip_secret_mounts");
    }
    let Some((capability, field)) = required
        .into_iter()
        .find(|(capability, _)| !able.contains(capability))
    else {
        return Ok(());
    };
    let message = format!(
        "builder `{}` does not support `{field}` ({})",
        candidate.name,
        capability.name()
    );
    let hint = "`imagespec builders` lists what each builder can do; choose another with `--builder`, or leave it out";
    Err(BuildError::input(message).field(field).hint(hint))
}

fn output(job: &Job, candidate: &Candidate) -> Output {
    job.output
        .clone()
        .unwrap_or_else(|| match job.destination.registry {
            Some(_) if job.push => Output::Push,
            _ => candidate.builder.local_output(),
        })
}

const fn output_capability(output: &Output) -> Capability {
    match output {
        Output::Push => Capability::OutputPush,
        Output::Store => Capability::OutputStore,
        Output::Docker => Capability::OutputDocker,
        Output::OciDir(_) => Capability::OutputOciDir,
        Output::Tar(_) => Capability::OutputTar,
    }
}

/// For every job the first one that makes the same image in the same place.
fn same(jobs: &[Job]) -> Vec<usize> {
    let mut first: HashMap<(Digest, &Destination, &Option<Output>, &str), usize> = HashMap::new();
    jobs.iter()
        .enumerate()
        .map(|(index, job)| {
            let key = (
                job.plan.digest(),
                &job.destination,
                &job.output,
                job.builder.name,
            );
            *first.entry(key).or_insert(index)
        })
        .collect()
}

struct Run<'a> {
    jobs: &'a [Job],
    options: Options,
    sink: &'a dyn EventSink,
    cancel: &'a CancellationToken,
    permits: Semaphore,
    chosen: Vec<Result<Candidate, BuildError>>,
    same: Vec<usize>,
    cells: Vec<OnceCell<Result<Outcome, BuildError>>>,
    /// Our own bases, as other builders make them: each once.
    bases: Mutex<HashMap<BaseKey, Arc<BaseCell>>>,
}

/// Which base, where it is wanted, and in which registry.
type BaseKey = (Digest, Output, Option<String>);
type BaseCell = OnceCell<Result<BuiltImage, BuildError>>;

impl Run<'_> {
    fn result(&self, index: usize) -> BoxFuture<'_, Result<Outcome, BuildError>> {
        Box::pin(async move {
            let index = self.same[index];
            self.cells[index]
                .get_or_init(|| self.image(index))
                .await
                .clone()
        })
    }

    async fn image(&self, index: usize) -> Result<Outcome, BuildError> {
        let job = &self.jobs[index];
        let base = match self.below(job).await {
            None => None,
            Some(Ok(Outcome::Done(image))) => Some(image),
            Some(Ok(Outcome::WouldBuild { .. })) => return Ok(self.would_build(index)),
            Some(Err(error)) => return Err(in_image(&job.target, error)),
        };
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| BuildError::interrupted())?;
        if self.cancel.is_cancelled() {
            return Err(BuildError::interrupted());
        }
        let graceful = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = self.one(index, base.as_ref()) => result.map_err(|error| match error.kind {
                ErrorKind::Interrupted => error,
                _ => in_image(&job.target, error),
            }),
            () = graceful => Err(BuildError::interrupted()),
        }
    }

    /// What became of the image that a job's starts from, if there is one.
    async fn below(&self, job: &Job) -> Option<Result<Outcome, BuildError>> {
        match job.base.as_ref()? {
            Below::Built(image) => Some(Ok(Outcome::Done(image.clone()))),
            Below::Job(base) => Some(self.result(*base).await),
        }
    }

    async fn one(&self, index: usize, base: Option<&BuiltImage>) -> Result<Outcome, BuildError> {
        let job = &self.jobs[index];
        let candidate = self.chosen[index].as_ref().map_err(Clone::clone)?;
        let output = output(job, candidate);
        let cx = BuildContext {
            output: &output,
            destination: &job.destination,
            files: &*job.files,
            base,
            secrets: &job.secrets,
            logins: &job.logins,
            settings: &job.settings,
            progress: Progress::new(&job.target, self.sink),
            cancel: self.cancel.clone(),
        };
        let written_anyway = matches!(output, Output::OciDir(_) | Output::Tar(_));
        if !job.settings.force && !written_anyway {
            match candidate.builder.find(&job.plan, &cx).await {
                Ok(Some(image)) => {
                    if !self.options.dry_run && !job.destination.extra_tags.is_empty() {
                        candidate.builder.tag(&image, &cx).await?;
                    }
                    return Ok(Outcome::Done(image));
                }
                Ok(None) => {}
                Err(error) if error.kind == ErrorKind::Unknown => {
                    match self.options.on_unknown {
                        OnUnknown::Fail => {
                            return Err(error.hint("`--on-unknown build` or `--on-unknown skip` decides without knowing"));
                        }
                        OnUnknown::Build => cx.progress.notice(format!("{error}; building it")),
                        OnUnknown::Skip => {
                            cx.progress.notice(format!("{error}; taking it to exist"));
                            return Ok(Outcome::Done(assumed(job, candidate)));
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if self.options.dry_run {
            return Ok(self.would_build(index));
        }
        let reference = job.destination.reference();
        cx.progress.emit(BuildEvent::Started {
            builder: candidate.name.to_owned(),
            reference,
        });
        self.make(job, &*candidate.builder, cx)
            .await
            .map(Outcome::Done)
    }

    /// Has an image built, after our own base where it starts from one.
    async fn make(
        &self,
        job: &Job,
        builder: &dyn Builder,
        cx: BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let mut own = None;
        if job.plan.has_made_base()
            && let Some(place) = builder.base_output(&job.plan, &cx).await?
        {
            own = Some(self.own_base(job, &cx, place).await?);
        }
        let cx = BuildContext {
            base: own.as_ref().or(cx.base),
            ..cx
        };
        builder.build(&job.plan, &cx).await
    }

    /// Where whoever makes a base with Conda packages over another image of ours finds that: in its registry, or in
    /// the store, where whoever builds it puts it once more.
    async fn reachable(
        &self,
        job: &Job,
        cx: &BuildContext<'_>,
    ) -> Result<(Base, Option<BuiltImage>), BuildError> {
        let unreachable = || {
            let message =
                "Conda packages cannot be added to an image that is nowhere but in an engine";
            BuildError::input(message)
                .field("conda_packages")
                .hint("name them in the first image, or choose `--builder native`")
        };
        let below = cx.base.ok_or_else(unreachable)?;
        let parent = match job.base {
            Some(Below::Job(at)) => Some((&self.jobs[at], self.chosen[at].as_ref())),
            _ => None,
        };
        let place = match parent {
            Some((parent, Ok(candidate))) => output(parent, candidate),
            _ => cx.output.clone(),
        };
        if place == Output::Push {
            let digest = below.digest.map(|digest| format!("@{digest}"));
            let reference = format!("{}{}", below.reference, digest.unwrap_or_default());
            return Ok((Base::Reference { reference }, None));
        }
        if place == Output::Store {
            return Ok((job.plan.base.clone(), Some(below.clone())));
        }
        let Some((parent, Ok(candidate))) = parent else {
            return Err(unreachable());
        };
        let base = match self.below(parent).await.transpose()? {
            Some(Outcome::Done(image)) => Some(image),
            _ => None,
        };
        let settings = BuildSettings {
            force: false,
            ..parent.settings.clone()
        };
        let kept = BuildContext {
            output: &Output::Store,
            destination: &parent.destination,
            files: &*parent.files,
            base: base.as_ref(),
            secrets: &parent.secrets,
            logins: &parent.logins,
            settings: &settings,
            progress: cx.progress,
            cancel: cx.cancel.clone(),
        };
        // Where it is now it was made a moment ago, or is remembered. What the store has under its name may be another.
        let image = self.make(parent, &*candidate.builder, kept).await?;
        Ok((job.plan.base.clone(), Some(image)))
    }

    /// Our own base, made by another builder and brought where this one starts from it.
    async fn own_base(
        &self,
        job: &Job,
        cx: &BuildContext<'_>,
        place: Output,
    ) -> Result<BuiltImage, BuildError> {
        let maker = job.base_maker.as_ref().ok_or_else(|| {
            let message = "no builder of this program makes a base image";
            BuildError::input(message)
                .field("base_image")
                .hint("name a `base_image`")
        })?;
        let mut plan = job.plan.base_only();
        let mut below = None;
        if matches!(plan.base, Base::Image { .. }) {
            (plan.base, below) = Box::pin(self.reachable(job, cx)).await?;
        }
        let registry = match place {
            Output::Push => job.destination.registry.clone(),
            _ => None,
        };
        let key = (plan.digest(), place.clone(), registry.clone());
        let cell = {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(bases.entry(key).or_default())
        };
        let make = async {
            let builder = &maker.builder;
            let settings = BuildSettings {
                labels: std::collections::BTreeMap::new(),
                force: false,
                ..job.settings.clone()
            };
            let named = |registry: Option<String>, tag: String| Destination {
                registry,
                pull_registry: None,
                name: OWN_BASE.to_owned(),
                tag,
                extra_tags: Vec::new(),
            };
            let here = named(None, plan.digest().hex());
            let kept = BuildContext {
                output: &Output::Store,
                destination: &here,
                base: below.as_ref(),
                secrets: &[],
                settings: &settings,
                cancel: cx.cancel.clone(),
                ..*cx
            };
            // Built even where it is there: Debian's packages may be newer. That is cheap where they are not.
            let made = builder.build(&plan, &kept).await?;
            let tag = made
                .digest
                .map_or_else(|| here.tag.clone(), |digest| digest.hex());
            let tag = tag.chars().take(OWN_BASE_TAG).collect();
            let destination = named(registry, tag);
            // All but the last step is done, and was told of.
            let step = cx
                .progress
                .step(OWN_BASE, "bring the base to where the image is built");
            let there = BuildContext {
                progress: Progress::new(&job.target, &Silent),
                output: &place,
                destination: &destination,
                cancel: cx.cancel.clone(),
                ..kept
            };
            let found = builder.find(&plan, &there).await?;
            let is_there = found.is_some();
            let image = match found {
                Some(found) => found,
                None => builder.build(&plan, &there).await?,
            };
            step.finish(is_there, image.reference.clone());
            Ok(image)
        };
        cell.get_or_init(|| make).await.clone()
    }

    fn would_build(&self, index: usize) -> Outcome {
        let builder = self.chosen[index]
            .as_ref()
            .map_or(self.jobs[index].builder.name, |candidate| candidate.name);
        Outcome::WouldBuild {
            reference: self.jobs[index].destination.reference(),
            builder: builder.to_owned(),
        }
    }
}

fn assumed(job: &Job, candidate: &Candidate) -> BuiltImage {
    BuiltImage {
        reference: job.destination.reference(),
        digest: None,
        builder: candidate.name.to_owned(),
        built: false,
        size: 0,
        pushed_bytes: 0,
        layers: Vec::new(),
        work: None,
    }
}

/// Why the job's builder, or whoever takes over for it, could not build it. Contacts nothing.
pub fn refusals(job: &Job) -> Vec<BuildError> {
    let refused = |candidate: &Candidate| {
        capable(job, candidate)
            .err()
            .map(|error| in_image(&job.target, error))
    };
    match (refused(&job.builder), job.fallback.as_ref().map(refused)) {
        (None, _) | (_, Some(None)) => Vec::new(),
        (_, Some(Some(error))) | (Some(error), None) => vec![error],
    }
}
