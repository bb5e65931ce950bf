//! The commands.

mod build;
mod data;
mod jobs;
mod list;
mod write;

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use tokio_util::sync::CancellationToken;

use crate::args::{Cli, Command};
use crate::load::Project;
use crate::{host, interrupt};

/// What every command stands on.
pub(crate) struct Context {
    pub(crate) host: Host,
    pub(crate) project: Project,
    pub(crate) folder: std::path::PathBuf,
}

/// Runs a command and returns its exit code.
pub(crate) fn run(cli: Cli) -> Result<u8, BuildError> {
    let folder = host::directory(cli.directory.as_deref())?;
    match cli.command {
        Command::Schema { spec } => return write::schema(spec),
        Command::Completions { shell } => return write::completions(shell),
        Command::Init => return write::init(&folder),
        _ => {}
    }
    let host = host::snapshot(std::collections::BTreeMap::new())?;
    let project = Project::load(
        &folder,
        host.variable("IMAGESPEC_CONFIG").map(std::path::Path::new),
    )?;
    let host = Host {
        registries: project.registries(),
        ..host
    };
    let cx = Context {
        host,
        project,
        folder,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| BuildError::failed("cannot start").caused_by(&error))?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        if !matches!(cli.command, Command::Exec { .. }) {
            tokio::spawn(interrupt::watch(cancel.clone()));
        }
        dispatch(cli.command, &cx, &cancel).await
    });
    // Work on threads that block ends by itself when it next looks; nobody waits for its result.
    runtime.shutdown_background();
    result
}

async fn dispatch(
    command: Command,
    cx: &Context,
    cancel: &CancellationToken,
) -> Result<u8, BuildError> {
    match command {
        Command::Build(args) => build::build(cx, args, cancel).await,
        Command::Check(args) => build::check(cx, &args),
        Command::Exec {
            build,
            target,
            command,
        } => build::exec(cx, build, target, command, cancel).await,
        Command::Plan { select, format } => list::plan(cx, &select, format),
        Command::Tag(select) => list::tag(cx, &select),
        Command::Builders { json } => list::builders(cx, json).await,
        Command::Images { json } => list::images(cx, json),
        Command::Cache { command } => list::cache(cx, &command),
        Command::Schema { .. } | Command::Completions { .. } | Command::Init => Ok(0),
    }
}
