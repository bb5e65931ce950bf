//! Building images, and checking whether they could be built.

use std::time::Instant;

use imagespec_core::builder::BuiltImage;
use imagespec_core::context::Output;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::execute::{Job, Outcome, execute, refusals};
use serde_json::{Value, json};

use super::jobs::{Work, work};
use super::resolve::resolve_targets;
use super::{Context, cloud};
use crate::args::{BuildArgs, ProgressForm};
use crate::report::{print, print_json, reporter};
use crate::{fail, interrupt};

/// What became of every job.
pub(super) type Results = Vec<Result<Outcome, BuildError>>;

/// Runs the pipeline, with progress on standard error, until it is done or the person stops it.
pub(super) async fn run(work: &Work, progress: ProgressForm) -> Results {
    let reporter = reporter(progress);
    let (cancel, watch) = interrupt::watch();
    let results = execute(&work.jobs, work.options, &*reporter, &cancel).await;
    watch.abort();
    results
}

pub(super) async fn build(cx: &Context, args: BuildArgs) -> Result<u8, BuildError> {
    let started = Instant::now();
    if let Some(id) = &args.attach {
        return cloud::attach(cx, id, &args).await;
    }
    if args.detach {
        let select = &args.select;
        let targets = resolve_targets(cx, &select.targets, &select.resolve, &args.how.tags)?;
        return cloud::detach(cx, &targets, &args).await;
    }
    let work = prepare(cx, &args)?;
    let results = run(&work, args.how.progress).await;
    let code = tell_failures(&work, &results);
    let done = work.targets.iter().filter_map(|target| {
        let outcome = results.get(*target)?.as_ref().ok()?;
        Some((&work.jobs[*target], outcome))
    });
    if args.json {
        let documents: Vec<_> = done
            .map(|(job, outcome)| document(job, outcome, started))
            .collect();
        print_json(&json!({ "images": documents }))?;
        return Ok(code);
    }
    for (job, outcome) in done {
        print(&line(job, outcome))?;
    }
    Ok(code)
}

fn prepare(cx: &Context, args: &BuildArgs) -> Result<Work, BuildError> {
    let output = args.output.as_ref().map(|output| absolute(cx, output));
    let select = &args.select;
    let resolved = resolve_targets(cx, &select.targets, &select.resolve, &args.how.tags)?;
    let one_place = matches!(output, Some(Output::OciDir(_) | Output::Tar(_)));
    if one_place && resolved.len() > 1 {
        let names: Vec<_> = resolved.iter().map(|target| target.name.as_str()).collect();
        let message = format!("`--output` names one place for {} images", names.len());
        return Err(
            BuildError::input(message).hint(format!("name one target: {}", names.join(", ")))
        );
    }
    work(cx, resolved, &args.how, output.as_ref(), args.dry_run)
}

/// Tells of every failure once, and returns the exit code they make together: 130 when interrupted, else the
/// highest, else 0.
pub(super) fn tell_failures(work: &Work, results: &Results) -> u8 {
    let mut told: Vec<&BuildError> = Vec::new();
    let failed = work.targets.iter();
    for error in failed.filter_map(|target| results.get(*target)?.as_ref().err()) {
        if !told.contains(&error) {
            fail::print(error);
            told.push(error);
        }
    }
    let interrupted = told
        .iter()
        .any(|error| error.kind == ErrorKind::Interrupted);
    let codes = told.iter().map(|error| error.kind.exit_code());
    if interrupted {
        ErrorKind::Interrupted.exit_code()
    } else {
        codes.max().unwrap_or(0)
    }
}

/// The name a builder gave the image; of one at its destination, as whoever runs it calls it.
fn name(job: &Job, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(image) if image.reference != job.destination.reference() => {
            image.reference.clone()
        }
        _ => job.destination.pull_reference(),
    }
}

/// `[registry/]name:tag@digest`.
fn line(job: &Job, outcome: &Outcome) -> String {
    let reference = name(job, outcome);
    match outcome {
        Outcome::WouldBuild { builder, .. } => format!("would build {reference} with {builder}"),
        Outcome::Done(BuiltImage {
            digest: Some(digest),
            ..
        }) => format!("{reference}@{digest}"),
        Outcome::Done(_) => reference,
    }
}

/// An image as `--json` shows it. `duration_ms` is counted from the start of the command.
fn document(job: &Job, outcome: &Outcome, started: Instant) -> Value {
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut document = json!({
        "target": job.target,
        "name": job.destination.name,
        "reference": name(job, outcome),
    });
    let rest = match outcome {
        Outcome::Done(image) => json!({
            "digest": image.digest,
            "builder": image.builder,
            "built": image.built,
            "size": image.size,
            "pushed_bytes": image.pushed_bytes,
            "duration_ms": milliseconds,
            "layers": image.layers,
            "work": image.work,
        }),
        Outcome::WouldBuild { builder, .. } => json!({
            "builder": builder,
            "built": false,
            "would_build": true,
        }),
    };
    if let (Value::Object(document), Value::Object(rest)) = (&mut document, rest) {
        document.extend(rest);
    }
    document
}

/// Paths of flags are relative to the folder the command works in.
fn absolute(cx: &Context, output: &Output) -> Output {
    match output {
        Output::OciDir(path) => Output::OciDir(cx.folder.join(path)),
        Output::Tar(path) => Output::Tar(cx.folder.join(path)),
        other => other.clone(),
    }
}

pub(super) fn check(cx: &Context, args: &BuildArgs) -> Result<u8, BuildError> {
    let work = prepare(cx, args)?;
    let mut code = 0;
    for target in &work.targets {
        let job = &work.jobs[*target];
        let refused = refusals(job);
        for error in &refused {
            fail::print(error);
            code = code.max(error.kind.exit_code());
        }
        if refused.is_empty() && !args.json {
            print(&format!("{}: fine", job.target))?;
        }
    }
    Ok(code)
}
