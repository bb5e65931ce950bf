//! What would be built, and what it would be called.

use std::path::Path;

use imagespec_core::error::BuildError;
use imagespec_core::plan::{Base, BuildPlan, Step};
use imagespec_core::registry::Registry;
use serde_json::json;

use super::resolve::{ResolvedTarget, resolve_targets};
use super::{Context, dockerfile, kaniko};
use crate::args::{Dialect, PlanFormat, Select};
use crate::builders;
use crate::report::{print, print_json};

pub(super) fn tag(cx: &Context, select: &Select) -> Result<u8, BuildError> {
    for target in resolve_targets(cx, &select.targets, &select.resolve, &[])? {
        print(&target.resolved.destination.pull_reference())?;
    }
    Ok(0)
}

pub(super) async fn plan(
    cx: &Context,
    select: &Select,
    format: PlanFormat,
    dialect: Option<Dialect>,
    write: Option<&Path>,
) -> Result<u8, BuildError> {
    // Only a Dockerfile is written.
    let is_dockerfile = format == PlanFormat::Dockerfile || write.is_some();
    if dialect.is_some() && !is_dockerfile {
        let message = "`--dialect` says whom a Dockerfile is for";
        return Err(BuildError::input(message).hint("add `--format dockerfile`"));
    }
    if write.is_some() && matches!(format, PlanFormat::Json | PlanFormat::Job) {
        let message = "`--write` writes a Dockerfile, and other formats are printed";
        return Err(BuildError::input(message).hint("leave `--write` or `--format` out"));
    }
    let targets = resolve_targets(cx, &select.targets, &select.resolve, &[])?;
    if format == PlanFormat::Job {
        kaniko::plan(cx, &targets).await?;
        return Ok(0);
    }
    if is_dockerfile {
        dockerfile::plan(cx, targets, dialect, write).await?;
        return Ok(0);
    }
    let registry = Registry::linked()?;
    let mut documents = Vec::new();
    for target in &targets {
        let resolved = &target.resolved;
        let builder = builders::find(&registry, &cx.host, &resolved.builder.0)?.name;
        let reference = resolved.destination.reference();
        if format == PlanFormat::Json {
            documents.push(json!({
                "target": target.name,
                "reference": reference,
                "builder": builder,
                "digest": resolved.plan.digest(),
                "plan": resolved.plan,
            }));
            continue;
        }
        print(&format!("{}: {reference} with `{builder}`", target.name))?;
        for line in lines(target) {
            print(&format!("  {line}"))?;
        }
    }
    if format == PlanFormat::Json {
        print_json(&json!({ "plans": documents }))?;
    }
    Ok(0)
}

/// A plan for people: a line a thing that is done.
fn lines(target: &ResolvedTarget) -> Vec<String> {
    let plan = &target.resolved.plan;
    let platforms: Vec<_> = plan.platforms.iter().map(ToString::to_string).collect();
    let base = match (&plan.base, &target.base) {
        (Base::Debian { suite }, _) => format!("Debian {suite}"),
        (Base::Reference { reference }, _) => reference.clone(),
        (Base::Image { .. }, Some(base)) => {
            format!("`{}`, {}", base.name, base.resolved.destination.reference())
        }
        (Base::Image { plan }, None) => format!("the image of the plan {plan}"),
    };
    let mut lines = vec![format!("from {base} for {}", platforms.join(", "))];
    lines.extend(
        plan.python
            .version
            .iter()
            .map(|version| match plan.standalone_python() {
                Some(_) => format!("python_version: {version}, of its own distribution"),
                None => format!("python_version: {version}"),
            }),
    );
    lines.extend(
        plan.python
            .exec
            .iter()
            .map(|path| format!("python_exec: {path}")),
    );
    lines.extend(plan.steps.iter().map(|step| step_line(plan, step)));
    if !plan.env.is_empty() {
        let names: Vec<_> = plan.env.keys().map(String::as_str).collect();
        lines.push(format!("env: {}", names.join(" ")));
    }
    if let Some(entrypoint) = &plan.entrypoint {
        lines.push(format!("entrypoint: {entrypoint:?}"));
    }
    lines
}

fn step_line(plan: &BuildPlan, step: &Step) -> String {
    match step {
        Step::AptPackages { packages } => format!("apt_packages: {}", packages.join(" ")),
        Step::CondaPackages { packages, .. } => format!("conda_packages: {}", packages.join(" ")),
        Step::PythonPackages {
            requirements,
            packages,
            ..
        } => {
            let file = requirements.as_ref().map(|requirements| &requirements.path);
            let file = file.map(|path| path.trim_start_matches("python/"));
            let all: Vec<_> = file
                .into_iter()
                .chain(packages.iter().map(String::as_str))
                .collect();
            match all.as_slice() {
                [] => "python packages: none".to_owned(),
                all => format!("python packages: {}", all.join(" ")),
            }
        }
        Step::Copy { field, from, to } => {
            format!("{field}: {} files to {to}", plan.entries(from).count())
        }
        Step::Run { commands } => format!("commands: {}", commands.join(" && ")),
        other => other.field().to_owned(),
    }
}
