//! `run` and `register`: the images of code, then the platform's own command.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagespec_builder_native::{Execution, Lent, execute};
use imagespec_core::context::Output;
use imagespec_core::error::BuildError;
use imagespec_core::execute::Outcome;
use imagespec_core::files::walk;
use imagespec_core::ignore::Ignore;
use imagespec_core::shell::word as word_of;
use imagespec_core::tag::TagScheme;
use imagespec_flyte::interpreter::find_program;
use imagespec_flyte::platform::{Action, Ready, arguments, is_fast};
use imagespec_flyte::{Code, Entity, EntityKind, Project};

use super::Context;
use super::build::{run as run_work, tell_failures};
use super::jobs::{Work, work};
use super::resolve::{deployment, reading, resolve_these};
use crate::args::{CodeArgs, RegisterArgs, RunArgs};
use crate::env;
use crate::load::{Reading, code_targets, read_code};
use crate::report::{note, print};

/// The platform of deployments that name none.
const PLATFORM: &str = "pyflyte";

/// Images of tasks, to be built.
struct Images {
    work: Work,
    /// flytekit's ids, in the order of the targets.
    ids: Vec<String>,
}

pub(super) async fn register(cx: &Context, args: RegisterArgs) -> Result<u8, BuildError> {
    let reading = Reading {
        fast: is_fast(&args.further),
        ..reading(cx, &args.code.resolve)
    };
    let code = read_code(&args.files, &cx.folder, reading)?;
    let label = args.files.first().map_or("code", String::as_str);
    let images = images(cx, &code, label, &args.code, None)?;
    let action = Action::Register { files: &args.files };
    hand_over(cx, images, &args.code, action, &args.further).await
}

pub(super) async fn run(cx: &Context, args: RunArgs) -> Result<u8, BuildError> {
    let reading = reading(cx, &args.code.resolve);
    let code = read_code(std::slice::from_ref(&args.file), &cx.folder, reading)?;
    let project = Project::of(&cx.folder, &args.file)?;
    if project.is_package {
        return Err(BuildError::input(format!(
            "tasks are run from a file, and this is a folder: `{}`",
            args.file
        )));
    }
    let entity = entity(&code, &project, &args)?;
    if args.remote {
        let images = images(cx, &code, &args.file, &args.code, None)?;
        let action = Action::Run {
            file: &args.file,
            entity: &args.task,
            inputs: &args.inputs,
        };
        return hand_over(cx, images, &args.code, action, &args.platform_args).await;
    }
    if let [first, ..] = args.platform_args.as_slice() {
        let message =
            format!("`--platform-arg` is for the platform, and this runs here: `{first}`");
        return Err(BuildError::input(message).hint("`--remote` runs it on the platform"));
    }
    run_here(cx, &code, entity, &project, &args).await
}

/// What is to run.
fn entity<'a>(code: &'a Code, project: &Project, args: &RunArgs) -> Result<&'a Entity, BuildError> {
    let named = |entity: &&Entity| entity.name == args.task;
    let own = |entity: &&Entity| entity.module == project.module;
    let found = code.entities.iter().filter(named).find(own);
    found
        .or_else(|| code.entities.iter().find(named))
        .ok_or_else(|| {
            let known: Vec<_> = code
                .entities
                .iter()
                .filter(own)
                .map(|entity| entity.name.as_str())
                .collect();
            let message = format!(
                "`{}` declares no task or workflow of this name: `{}`",
                args.file, args.task
            );
            let error = BuildError::input(message);
            match known.as_slice() {
                [] => error.hint("it declares none"),
                known => error.hint(format!("it declares {}", known.join(", "))),
            }
        })
}

/// The images of code, to be built. `wanted` is the only one, where one is enough.
fn images(
    cx: &Context,
    code: &Code,
    label: &str,
    args: &CodeArgs,
    wanted: Option<usize>,
) -> Result<Images, BuildError> {
    if args.resolve.tag_scheme == Some(TagScheme::Imagespec) {
        let message = "the platform knows images by flytekit's names: `--tag-scheme imagespec`";
        return Err(BuildError::input(message).hint("leave it out"));
    }
    let mut resolve = args.resolve.clone();
    resolve.tag_scheme = Some(TagScheme::Flytekit);
    let wanted = wanted.as_ref().map(std::slice::from_ref);
    let targets = code_targets(code, label, &cx.folder, wanted)?;
    if targets.is_empty() && wanted.is_some() {
        let message =
            "this image is made elsewhere, and tasks run here in images that are made here";
        return Err(BuildError::input(message).hint("`pyflyte run` runs it without an image"));
    }
    let resolved = resolve_these(cx, targets, &resolve, &args.how.tags)?;
    let ids = resolved
        .iter()
        .filter_map(|target| Some(target.resolved.flytekit.as_ref()?.id.clone()))
        .collect();
    let kept = wanted.map(|_| Output::Store);
    Ok(Images {
        work: work(cx, resolved, &args.how, kept.as_ref(), args.dry_run)?,
        ids,
    })
}

/// Builds what is missing and hands over to the platform's command.
async fn hand_over(
    cx: &Context,
    images: Images,
    args: &CodeArgs,
    action: Action<'_>,
    further: &[String],
) -> Result<u8, BuildError> {
    let command = platform(cx, args)?;
    // Nothing is built for a command that is not there.
    let located = (!args.dry_run).then(|| located(cx, &command)).transpose()?;
    let Images { work, ids } = images;
    let results = run_work(&work, args.how.progress).await;
    let code = tell_failures(&work, &results);
    if code != 0 {
        return Ok(code);
    }
    let mut ready = Vec::new();
    for (target, id) in work.targets.iter().zip(ids) {
        let job = &work.jobs[*target];
        let reference = job.destination.pull_reference();
        match results.get(*target) {
            Some(Ok(Outcome::WouldBuild { builder, .. })) => {
                note(&format!("would build {reference} with {builder}"));
            }
            Some(Ok(Outcome::Done(_))) | None => note(&format!("image {reference}")),
            Some(Err(_)) => {}
        }
        if job.destination.registry.is_none() {
            note(&format!(
                "no registry is set: {reference} stays on this machine"
            ));
        }
        ready.push(Ready { id, reference });
    }
    let arguments = arguments(action, &ready, further);
    let Some((program, first)) = located else {
        let words = command.iter().chain(&arguments).map(|word| word_of(word));
        print(&words.collect::<Vec<_>>().join(" "))?;
        return Ok(0);
    };
    let mut command = Command::new(&program);
    command.args(first).args(&arguments).current_dir(&cx.folder);
    // In place of this program: signals and the exit code are its own.
    let error = command.exec();
    Err(BuildError::unavailable(format!("cannot run `{}`", program.display())).caused_by(&error))
}

/// The platform's command: the flag's, or that of the variable, or the deployment's.
fn platform(cx: &Context, args: &CodeArgs) -> Result<Vec<String>, BuildError> {
    let said = args
        .platform_command
        .as_deref()
        .or_else(|| cx.variable(env::PLATFORM_COMMAND));
    let words: Vec<_> = match said {
        Some(said) => said.split_whitespace().map(str::to_owned).collect(),
        None => deployment(cx, &args.resolve)?
            .platform_command
            .unwrap_or_else(|| vec![PLATFORM.to_owned()]),
    };
    if words.is_empty() {
        return Err(BuildError::input("the platform's command is empty")
            .field("platform_command")
            .hint("name a program, such as `pyflyte`"));
    }
    Ok(words)
}

fn located<'a>(cx: &Context, command: &'a [String]) -> Result<(PathBuf, &'a [String]), BuildError> {
    let Some((name, first)) = command.split_first() else {
        return Err(BuildError::failed("there is no command"));
    };
    let found = find_program(name, &cx.folder, &cx.host.variables);
    let program = found.ok_or_else(|| {
        BuildError::unavailable(format!("the platform's command is not there: `{name}`"))
            .hint("activate the environment that has it, or install it: `pip install flytekit` brings `pyflyte`")
            .hint("`--platform-command`, or `platform_command` of a deployment, names another one")
    })?;
    Ok((program, first))
}

/// Runs a task or a workflow in its image on this machine.
async fn run_here(
    cx: &Context,
    code: &Code,
    entity: &Entity,
    project: &Project,
    args: &RunArgs,
) -> Result<u8, BuildError> {
    let image = image_of(code, entity)?;
    let Images { work, .. } = images(cx, code, &args.file, &args.code, Some(image))?;
    let relative = project.module.replace('.', "/");
    let command: Vec<_> = ["pyflyte", "run", &format!("{relative}.py"), &args.task]
        .map(str::to_owned)
        .into();
    let command = [command, args.inputs.clone()].concat();
    if args.code.dry_run {
        let results = run_work(&work, args.code.how.progress).await;
        let failed = tell_failures(&work, &results);
        if failed == 0 {
            let job = &work.jobs[work.targets[0]];
            let words = command.iter().map(|word| word_of(word));
            print(&format!(
                "in {}: {}",
                job.destination.reference(),
                words.collect::<Vec<_>>().join(" ")
            ))?;
        }
        return Ok(failed);
    }
    let mut results = run_work(&work, args.code.how.progress).await;
    let result = work
        .targets
        .first()
        .map(|target| results.swap_remove(*target));
    let Some(Outcome::Done(image)) = result.transpose()? else {
        return Err(BuildError::failed("nothing was built to run the task in"));
    };
    let staged = tempfile::Builder::new().prefix("run-").tempdir();
    let staged = staged
        .map_err(|error| BuildError::unwritten("cannot copy the code", "source_root", &error))?;
    let lent = stage(&project.root, staged.path())?;
    let execution = Execution {
        reference: image.reference,
        command,
        lent,
        term: cx.variable(env::TERM).map(str::to_owned),
    };
    execute(&cx.host, &execution).await
}

/// The image that an entity runs in; of a workflow, the one that all tasks have.
fn image_of(code: &Code, entity: &Entity) -> Result<usize, BuildError> {
    let images: Vec<usize> = match entity.kind {
        EntityKind::Task => entity.images.clone(),
        EntityKind::Workflow => {
            let all = code
                .entities
                .iter()
                .filter(|other| other.kind == EntityKind::Task && other.module == entity.module);
            let mut images: Vec<_> = all.flat_map(|task| task.images.clone()).collect();
            images.sort_unstable();
            images.dedup();
            images
        }
    };
    let name = &entity.name;
    match images.as_slice() {
        [image] => Ok(*image),
        [] => Err(
            BuildError::input(format!("nothing says which image this runs in: `{name}`")).hint(
                "`@task(container_image=ImageSpec(…))` says it; `pyflyte run` runs without one",
            ),
        ),
        _ => Err(BuildError::input(format!(
            "this needs {} images, and here everything runs in one: `{name}`",
            images.len()
        ))
        .hint("run one of its tasks, or all of it on the platform: `--remote`")),
    }
}

/// Copies the code, as a fast registration takes it, to where every user can read it.
fn stage(root: &Path, staged: &Path) -> Result<Vec<Lent>, BuildError> {
    let failed = |error: &std::io::Error| {
        BuildError::failed(format!("cannot copy the code of `{}`", root.display())).caused_by(error)
    };
    let found = Ignore::load(root).and_then(|mut ignore| walk(root, Some(&mut ignore)));
    let found = found.map_err(|error| failed(&error))?;
    let mut first = std::collections::BTreeSet::new();
    for file in found.iter().filter(|file| file.host.is_file()) {
        let target = staged.join(&file.path);
        let copied = target
            .parent()
            .map_or(Ok(()), fs_err::create_dir_all)
            .and_then(|()| fs_err::copy(&file.host, &target));
        copied.map_err(|error| failed(&error))?;
        first.extend(file.path.split('/').next().map(str::to_owned));
    }
    open_up(staged).map_err(|error| failed(&error))?;
    let lent = first.into_iter().map(|name| Lent {
        source: staged.join(&name),
        target: Path::new(imagespec_core::contract::WORKDIR).join(name),
    });
    Ok(lent.collect())
}

/// Lets every user read a tree.
fn open_up(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = path.metadata()?;
    let mode = found.permissions().mode() | if found.is_dir() { 0o755 } else { 0o644 };
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if found.is_dir() {
        for entry in fs_err::read_dir(path)? {
            open_up(&entry?.path())?;
        }
    }
    Ok(())
}
