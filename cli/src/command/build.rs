//! Building, checking and running images.

use std::time::Instant;

use imagespec_builder_native::{Execution, execute as execute_in};
use imagespec_core::builder::BuiltImage;
use imagespec_core::context::Output;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::execute::{Job, Options, Outcome, execute, refusals};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::data::{print, print_json};
use super::jobs::{jobs, meant};
use crate::args::{BuildArgs, ExecArgs, HowArgs};
use crate::{fail, report};

fn options(how: &HowArgs, dry_run: bool, jobs: &[Job]) -> Options {
    let at_once = jobs.first().map_or(1, |job| job.settings.jobs);
    Options {
        jobs: at_once,
        on_unknown: how.on_unknown.unwrap_or_default(),
        dry_run,
    }
}

pub(super) async fn build(
    cx: &Context,
    args: BuildArgs,
    cancel: &CancellationToken,
) -> Result<u8, BuildError> {
    let started = Instant::now();
    let output = args.output.as_ref().map(|output| absolute(cx, output));
    let asked = meant(cx, &args.select.targets, &args.select.resolve)?;
    let (jobs, targets) = jobs(cx, asked, &args.how, &args.select.resolve, output.as_ref())?;
    if targets.len() > 1 && matches!(output, Some(Output::OciDir(_) | Output::Tar(_))) {
        return Err(
            BuildError::input("`--output` names one place for several images")
                .hint("name one target"),
        );
    }
    let reporter = report::reporter(args.how.progress);
    let results = execute(
        &jobs,
        options(&args.how, args.dry_run, &jobs),
        &*reporter,
        cancel,
    )
    .await;
    drop(reporter);
    let mut code = 0;
    let mut images = Vec::new();
    let mut told: Vec<&BuildError> = Vec::new();
    for target in targets {
        match &results[target] {
            Ok(outcome) => images.push((&jobs[target], outcome)),
            Err(error) => {
                if !told.contains(&error) {
                    fail::print(error);
                    told.push(error);
                }
                code = code.max(if error.kind == ErrorKind::Interrupted {
                    u8::MAX
                } else {
                    error.kind.exit_code()
                });
            }
        }
    }
    if args.json {
        let documents: Vec<_> = images
            .iter()
            .map(|(job, outcome)| document(job, outcome, started))
            .collect();
        print_json(&json!({ "images": documents }))?;
    } else {
        for (job, outcome) in images {
            match outcome {
                Outcome::Done(image) => print(&line(job, image))?,
                Outcome::WouldBuild { reference, builder } => {
                    print(&format!("would build {reference} with {builder}"))?;
                }
            }
        }
    }
    Ok(if code == u8::MAX {
        ErrorKind::Interrupted.exit_code()
    } else {
        code
    })
}

/// The name a builder gave the image: of one at its destination, as whoever runs it calls it.
fn name(job: &Job, image: &BuiltImage) -> String {
    if image.reference == job.destination.reference() {
        return job.destination.pull_reference();
    }
    image.reference.clone()
}

/// `[registry/]name:tag@digest`, as whoever runs the image calls it.
fn line(job: &Job, image: &BuiltImage) -> String {
    let reference = name(job, image);
    image.digest.map_or_else(
        || reference.clone(),
        |digest| format!("{reference}@{digest}"),
    )
}

fn document(job: &Job, outcome: &Outcome, started: Instant) -> serde_json::Value {
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut document = match outcome {
        Outcome::Done(image) => serde_json::to_value(image).unwrap_or_default(),
        Outcome::WouldBuild { reference, builder } => {
            json!({ "reference": reference, "builder": builder, "built": false })
        }
    };
    document["target"] = json!(job.target);
    document["name"] = json!(job.destination.name);
    if let Outcome::Done(image) = outcome {
        document["reference"] = json!(name(job, image));
    }
    document["duration_ms"] = json!(milliseconds);
    document
}

fn absolute(cx: &Context, output: &Output) -> Output {
    match output {
        Output::OciDir(path) => Output::OciDir(cx.folder.join(path)),
        Output::Tar(path) => Output::Tar(cx.folder.join(path)),
        other => other.clone(),
    }
}

pub(super) fn check(cx: &Context, args: &BuildArgs) -> Result<u8, BuildError> {
    let asked = meant(cx, &args.select.targets, &args.select.resolve)?;
    let (jobs, targets) = jobs(
        cx,
        asked,
        &args.how,
        &args.select.resolve,
        args.output.as_ref(),
    )?;
    let mut code = 0;
    for target in targets {
        let job = &jobs[target];
        let refused = refusals(job);
        for error in &refused {
            fail::print(error);
            code = error.kind.exit_code();
        }
        if refused.is_empty() {
            print(&format!("{}: fine", job.target))?;
        }
    }
    Ok(code)
}

pub(super) async fn exec(
    cx: &Context,
    args: ExecArgs,
    target: String,
    command: Vec<String>,
    cancel: &CancellationToken,
) -> Result<u8, BuildError> {
    let asked = meant(cx, &[target], &args.resolve)?;
    let (jobs, targets) = jobs(cx, asked, &args.how, &args.resolve, Some(&Output::Store))?;
    let reporter = report::reporter(args.how.progress);
    let mut results = execute(&jobs, options(&args.how, false, &jobs), &*reporter, cancel).await;
    drop(reporter);
    let Some(target) = targets.first() else {
        return Ok(0);
    };
    match results.swap_remove(*target)? {
        Outcome::Done(image) => {
            let execution = Execution {
                reference: image.reference,
                command,
                term: cx.host.variable("TERM").map(str::to_owned),
            };
            execute_in(&cx.host, &execution).await
        }
        Outcome::WouldBuild { .. } => Ok(0),
    }
}
