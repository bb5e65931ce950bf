//! What a person types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use imagespec_core::context::{Compression, Output};
use imagespec_core::execute::OnUnknown;
use imagespec_core::platform::Platform;
use imagespec_core::tag::TagScheme;

/// Turn declarations of container images into images.
#[derive(Debug, Parser)]
#[command(
    name = "imagespec",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit codes: 0 done; 1 a build failed; 2 the input is wrong; 3 a builder or service cannot be \
reached; 4 nobody can tell whether the image exists; 130 interrupted."
)]
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
    },
    /// Print the names of images, tags included
    Tag(Select),
    /// Validate, and compare with what the builder can do
    Check(BuildArgs),
    /// Run a command in an image, building it first if it is missing
    Exec {
        #[command(flatten)]
        build: ExecArgs,
        /// Name of an image in imagespec.toml, or a spec file
        target: String,
        /// The command; without one, the image's own
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// List the builders and whether each works here
    Builders {
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
    /// Print the JSON Schema of imagespec.toml
    Schema {
        /// Print that of a file with a single spec
        #[arg(long)]
        spec: bool,
    },
    /// Print a script that completes this command in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a first imagespec.toml
    Init,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Say where the caches are and how large
    Info,
    /// Remove what no image needs
    Prune {
        /// Also forget images and layers that could be used again
        #[arg(long)]
        all: bool,
    },
}

/// Which images, and what they are resolved against.
#[derive(Debug, Default, Args)]
pub(crate) struct Select {
    /// Images of imagespec.toml, or spec files; all images without one
    pub(crate) targets: Vec<String>,
    #[command(flatten)]
    pub(crate) resolve: ResolveArgs,
}

#[derive(Debug, Default, Args)]
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
    /// A further tag
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// An option of the builder
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) options: Vec<(String, String)>,
}

#[derive(Debug, Default, Args)]
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
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) resolve: ResolveArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// How images are built.
#[derive(Debug, Default, Args)]
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
    /// Do without bytecode
    #[arg(long, overrides_with = "bytecode")]
    pub(crate) no_bytecode: bool,
    /// Compile Python to bytecode (the default)
    #[arg(long)]
    pub(crate) bytecode: bool,
    /// Compression of layers
    #[arg(long, value_name = "FORM", value_parser = compression, default_value = "gzip")]
    pub(crate) compression: Option<Compression>,
    /// A label of the image
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// How many things are done at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// What to do when nobody can tell whether an image exists
    #[arg(long, value_name = "POLICY", value_parser = on_unknown, default_value = "fail")]
    pub(crate) on_unknown: Option<OnUnknown>,
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
    /// A live view
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

fn tag_scheme(text: &str) -> Result<TagScheme, String> {
    match text {
        "imagespec" => Ok(TagScheme::Imagespec),
        "flytekit" => Ok(TagScheme::Flytekit),
        _ => Err("expected `imagespec` or `flytekit`".to_owned()),
    }
}
