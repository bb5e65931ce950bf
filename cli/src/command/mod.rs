//! The commands.

mod build;
mod builders;
mod cloud;
mod code;
mod dockerfile;
mod doctor;
mod exec;
mod jobs;
mod kaniko;
mod plan;
mod reference;
mod resolve;
mod serve;
mod store;
mod write;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;

use crate::args::{Cli, Command, KanikoCommand};
use crate::env::{self, Variable};
use crate::host;
use crate::load::Project;
use crate::report::print;

/// How long an interrupted command waits for the files it was writing.
const TIDYING: Duration = Duration::from_secs(5);

/// What every command stands on.
#[derive(Debug)]
pub(crate) struct Context {
    /// The machine.
    pub(crate) host: Host,
    /// What the files around the folder say.
    pub(crate) project: Project,
    /// The folder the command works in.
    pub(crate) folder: PathBuf,
}

impl Context {
    fn new(folder: PathBuf) -> Result<Self, BuildError> {
        let variables = host::variables();
        let named = variables
            .get(env::CONFIG.name)
            .filter(|path| !path.is_empty());
        let user = host::user_config(&variables);
        let project = Project::load(&folder, named.map(Path::new), user.as_deref())?;
        Ok(Self {
            host: host::snapshot(project.registries(), variables)?,
            project,
            folder,
        })
    }

    /// The value of a variable; an empty one counts as unset.
    fn variable(&self, variable: Variable) -> Option<&str> {
        self.host.variable(variable.name)
    }
}

/// Runs a command and returns its exit code.
pub(crate) fn run(cli: Cli) -> Result<u8, BuildError> {
    let folder = host::directory(cli.directory.as_deref())?;
    let context = || Context::new(folder.clone());
    match cli.command {
        Command::Build(args) => block_on(build::build(&context()?, args)),
        Command::Plan {
            select,
            format,
            dialect,
            write,
        } => block_on(plan::plan(
            &context()?,
            &select,
            format,
            dialect,
            write.as_deref(),
        )),
        Command::Tag(select) => plan::tag(&context()?, &select),
        Command::Check(args) => build::check(&context()?, &args),
        Command::Exec {
            build,
            target,
            command,
        } => block_on(exec::exec(&context()?, build, target, command)),
        Command::Run(args) => block_on(code::run(&context()?, args)),
        Command::Register(args) => block_on(code::register(&context()?, args)),
        Command::Builders { json } => block_on(builders::builders(&context()?, json)),
        Command::Doctor { builder, json } => {
            block_on(doctor::doctor(&context()?, builder.as_deref(), json))
        }
        Command::Kaniko {
            command: KanikoCommand::Prune { all },
        } => block_on(kaniko::prune(&context()?, all)),
        Command::Kaniko {
            command: KanikoCommand::Bring { from, to },
        } => imagespec_builder_kaniko::bring(&from, &to).map(|()| 0),
        Command::Kaniko {
            command: KanikoCommand::Fetch { url, digest, to },
        } => block_on(kaniko::fetch(&context()?, &url, &digest, &to)),
        Command::Kaniko {
            command:
                KanikoCommand::Execute {
                    context: file,
                    lent,
                    work,
                },
        } => block_on(kaniko::execute(&context()?, file, lent, work)),
        Command::Serve(args) => block_on(serve::serve(&context()?, args)),
        Command::Token { command, options } => {
            block_on(cloud::token(&context()?, command, &options))
        }
        Command::Images { json } => store::images(&context()?, json),
        Command::Cache { command } => store::cache(&context()?, &command),
        Command::Openapi => print(imagespec_build_service::openapi().trim_end()).map(|()| 0),
        Command::Reference => reference::reference(),
        Command::Schema { spec } => write::schema(spec),
        Command::Completions { shell } => write::completions(shell),
        Command::Init { hello } => write::init(&folder, hello),
    }
}

fn block_on(command: impl Future<Output = Result<u8, BuildError>>) -> Result<u8, BuildError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| BuildError::failed("cannot start threads").caused_by(&error))?;
    let result = runtime.block_on(command);
    // Work on threads that block ends by itself when it next looks, and removes what it had not finished.
    runtime.shutdown_timeout(TIDYING);
    result
}
