//! What a person types.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use imagespec_builder_cloud::Scope;
use imagespec_core::context::{Compression, Output};
use imagespec_core::digest::Digest;
use imagespec_core::execute::OnUnknown;
use imagespec_core::platform::Platform;
use imagespec_core::tag::TagScheme;

use crate::env;

/// The exit codes, and what each means.
pub(crate) const EXIT_CODES: [(u8, &str); 6] = [
    (0, "done"),
    (1, "a build failed"),
    (2, "the input is wrong"),
    (3, "a builder or service cannot be reached or refuses"),
    (4, "nobody can tell whether the image exists"),
    (130, "interrupted"),
];

fn exit_codes() -> String {
    let codes = EXIT_CODES.map(|(code, meaning)| format!("{code} {meaning}"));
    format!("Exit codes: {}.", codes.join("; "))
}

fn long_help() -> String {
    format!("Environment:\n{}\n{}", env::listing(), exit_codes())
}

/// Turn declarations of container images into images
#[derive(Debug, Parser)]
#[command(
    name = "imagespec",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(after_help = exit_codes(), after_long_help = long_help())]
pub(crate) struct Cli {
    /// Work in this folder
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build what is missing and deliver it
    Build(BuildArgs),
    /// Show what would be built
    Plan {
        #[command(flatten)]
        select: Select,
        /// How to show it
        #[arg(long, value_enum, default_value_t)]
        format: PlanFormat,
        /// Whom a Dockerfile is for
        #[arg(long, value_enum, value_name = "DIALECT")]
        dialect: Option<Dialect>,
        /// Put the Dockerfile and its context into a folder
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
    /// Print the names of images, tags included
    Tag(Select),
    /// Validate, and compare with what the builder can do
    Check(BuildArgs),
    /// Run a command in an image, building it first if it is missing
    Exec {
        #[command(flatten)]
        build: ExecArgs,
        /// Name of an image in imagespec.toml, a spec file, or a Python file with one image
        target: String,
        /// The command; without one, the image's own
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Build the image of a task and run the task in it, or build all and run it on the platform
    Run(RunArgs),
    /// Build the images that code names, then register the code with the platform
    Register(RegisterArgs),
    /// List the builders and whether each works here
    Builders {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check what building needs, and say how to mend it
    Doctor {
        /// A builder that has to work, too
        #[arg(long, value_name = "NAME")]
        builder: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the images of the local store
    Images {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at the caches, or make them smaller
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Run a build service, for builder `union` of others
    Serve(ServeArgs),
    /// Look after the tokens of a build service
    Token {
        #[command(subcommand)]
        command: TokenCommand,
        /// An option of builder `union`, which says where the service is
        #[arg(long = "option", value_name = "KEY=VALUE", value_parser = key_value, global = true)]
        options: Vec<(String, String)>,
    },
    /// Look after the cluster in which builder `kaniko` builds
    Kaniko {
        #[command(subcommand)]
        command: KanikoCommand,
    },
    /// Print the JSON Schema of imagespec.toml
    Schema {
        /// Print that of a file with a single spec
        #[arg(long)]
        spec: bool,
    },
    /// Print the book's chapter on all of these
    #[command(hide = true)]
    Reference,
    /// Print what describes the build service's API to programs
    #[command(hide = true)]
    Openapi,
    /// Print a script that completes this command in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a first imagespec.toml
    Init {
        /// Also write a program for it to hold
        #[arg(long)]
        hello: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Say where the caches are and how large
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what no image needs, and what was not used for a while
    Prune {
        /// Also forget images, and everything else that could be used again
        #[arg(long)]
        all: bool,
        /// Remove downloads, root file systems and the like that were not used for so many days
        #[arg(
            long,
            value_name = "DAYS",
            default_value_t = 30,
            conflicts_with = "all"
        )]
        older_than: u16,
        /// Remove the longest unused of them until so many gigabytes are left
        #[arg(long, value_name = "GB", conflicts_with = "all")]
        max_size: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print its secret this once
    Add {
        /// Whose it is
        name: String,
        /// What it allows, and all before it: read, build, admin
        #[arg(long, value_name = "SCOPE", value_parser = scope, default_value = "build")]
        scope: Scope,
        /// The project it is for; `*` for all
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
    },
    /// List tokens, without their secrets
    List,
    /// Revoke a token
    Remove {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KanikoCommand {
    /// Remove Jobs that ended or that nobody lets begin, and what belongs to them
    Prune {
        /// Also remove those that are under way
        #[arg(long)]
        all: bool,
    },
    /// Copy this program from its image to where other containers have it
    #[command(hide = true)]
    Bring {
        /// Where it is
        from: PathBuf,
        /// Where it goes
        to: PathBuf,
    },
    /// Get a build context for the executor
    #[command(hide = true)]
    Fetch {
        /// The file that has its URL
        url: PathBuf,
        /// The digest of its content
        digest: Digest,
        /// Where it goes
        to: PathBuf,
    },
    /// Be the executor in a pod
    #[command(hide = true)]
    Execute {
        /// The archive with the context, or `-` for standard input
        #[arg(long, value_name = "FILE")]
        context: PathBuf,
        /// The folder with what the build is lent
        #[arg(long, value_name = "DIR")]
        lent: PathBuf,
        /// A folder to write to
        #[arg(long, value_name = "DIR")]
        work: PathBuf,
    },
}

/// Which images, and what they are resolved against.
#[derive(Debug, Args)]
pub(crate) struct Select {
    /// Images of imagespec.toml, spec files, or Python files and packages; all images without one
    pub(crate) targets: Vec<String>,
    #[command(flatten)]
    pub(crate) resolve: ResolveArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ResolveArgs {
    /// Who builds
    #[arg(long, value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// The deployment whose defaults count
    #[arg(long, value_name = "NAME")]
    pub(crate) deployment: Option<String>,
    /// The registry of the images
    #[arg(long, value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    /// Platforms, separated by commas
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<Platform>,
    /// How tags are computed
    #[arg(long, value_name = "SCHEME", value_parser = tag_scheme)]
    pub(crate) tag_scheme: Option<TagScheme>,
    /// How Python files are read
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) via: Option<Via>,
    /// An option of the builder
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) options: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Where images go: push, store, docker, oci:DIR or tar:FILE
    #[arg(long, value_name = "OUTPUT", value_parser = output)]
    pub(crate) output: Option<Output>,
    /// Only say what would be built
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the id of the build and do not wait for it, with builder `union`
    #[arg(long, conflicts_with_all = ["dry_run", "json"])]
    pub(crate) detach: bool,
    /// Follow a build of builder `union` that was detached
    #[arg(long, value_name = "ID", conflicts_with_all = ["targets", "dry_run", "detach"])]
    pub(crate) attach: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// A file with the service's settings; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8484]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// URL of the database; without one, the service has one of its own in its folder
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// URL of an object store for files of contexts, where services share no folder
    #[arg(long, value_name = "URL")]
    pub(crate) files: Option<String>,
    /// Folder of what the service keeps
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Who builds [default: native]
    #[arg(long, value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// An option of the builder
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) options: Vec<(String, String)>,
    /// How many builds are done at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: Option<u16>,
    /// A registry that images may go to and start from
    #[arg(long = "registry", value_name = "REGISTRY")]
    pub(crate) registries: Vec<String>,
    /// Trust whoever has a token with this machine: images may go anywhere and run commands
    #[arg(long)]
    pub(crate) trusted: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) code: CodeArgs,
    /// Run it on the platform, not here
    #[arg(long, short = 'r')]
    pub(crate) remote: bool,
    /// A further argument of the platform's `run`, such as `--project=P`
    #[arg(long = "platform-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) platform_args: Vec<String>,
    /// The file of the task
    pub(crate) file: String,
    /// The task or workflow
    pub(crate) task: String,
    /// Its inputs, as the platform's `run` takes them: --NAME VALUE
    #[arg(
        value_name = "ARG",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) inputs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    #[command(flatten)]
    pub(crate) code: CodeArgs,
    /// Files and packages
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Further arguments of the platform's `register`
    #[arg(last = true, value_name = "ARG")]
    pub(crate) further: Vec<String>,
}

/// How the images of code are built, and whom it is handed to.
#[derive(Debug, Args)]
pub(crate) struct CodeArgs {
    #[command(flatten)]
    pub(crate) resolve: ResolveArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// The platform's command, instead of the deployment's: pyflyte, union
    #[arg(long, value_name = "COMMAND")]
    pub(crate) platform_command: Option<String>,
    /// Only say what would be built and run
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) resolve: ResolveArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// How images are built.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag, none excludes another"
)]
pub(crate) struct HowArgs {
    /// Build even what exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Ask again what the base and the archive have now
    #[arg(long)]
    pub(crate) pull: bool,
    /// Refuse what imagespec.lock does not pin
    #[arg(long)]
    pub(crate) locked: bool,
    /// A further tag
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Compile no Python to bytecode; an image that has some is built again
    #[arg(long, overrides_with = "bytecode")]
    pub(crate) no_bytecode: bool,
    /// Compile Python to bytecode, as is the default; an image without is built again
    #[arg(long, overrides_with = "no_bytecode")]
    pub(crate) bytecode: bool,
    /// Compression of layers: gzip (the default), gzip-single or zstd; an image with another is built again
    #[arg(long, value_name = "FORM", value_parser = compression)]
    pub(crate) compression: Option<Compression>,
    /// A label of the image; one that lacks it is built again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// How many things are done at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// What to do when nobody can tell whether an image exists
    #[arg(long, value_name = "POLICY", value_parser = on_unknown, default_value = "fail")]
    pub(crate) on_unknown: OnUnknown,
    /// Never let another builder take over
    #[arg(long)]
    pub(crate) no_fallback: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(crate) progress: ProgressForm,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressForm {
    /// A live view on a terminal, lines elsewhere
    #[default]
    Auto,
    /// A live view, where there is a terminal
    Tty,
    /// A line a step
    Plain,
    /// A JSON document a line
    Json,
    /// Nothing but errors
    Quiet,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people
    #[default]
    Text,
    /// The whole plan
    Json,
    /// A Dockerfile
    Dockerfile,
    /// A Kubernetes job
    Job,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// Docker's builder
    Buildkit,
    /// Kaniko
    Kaniko,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// Without running them
    Static,
    /// By a Python that runs them
    Python,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected `KEY=VALUE`".to_owned()),
    }
}

fn output(text: &str) -> Result<Output, String> {
    Ok(match text.split_once(':') {
        None if text == "push" => Output::Push,
        None if text == "store" => Output::Store,
        None if text == "docker" => Output::Docker,
        Some(("oci", folder)) if !folder.is_empty() => Output::OciDir(folder.into()),
        Some(("tar", file)) if !file.is_empty() => Output::Tar(file.into()),
        _ => return Err("expected `push`, `store`, `docker`, `oci:DIR` or `tar:FILE`".to_owned()),
    })
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "gzip-single" => Ok(Compression::GzipSingle),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("expected `gzip`, `gzip-single` or `zstd`".to_owned()),
    }
}

fn on_unknown(text: &str) -> Result<OnUnknown, String> {
    match text {
        "fail" => Ok(OnUnknown::Fail),
        "build" => Ok(OnUnknown::Build),
        "skip" => Ok(OnUnknown::Skip),
        _ => Err("expected `fail`, `build` or `skip`".to_owned()),
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::of(text).ok_or_else(|| "expected `read`, `build` or `admin`".to_owned())
}

fn tag_scheme(text: &str) -> Result<TagScheme, String> {
    match text {
        "imagespec" => Ok(TagScheme::Imagespec),
        "flytekit" => Ok(TagScheme::Flytekit),
        _ => Err("expected `imagespec` or `flytekit`".to_owned()),
    }
}
