//! From what was written to what is meant: every default filled in, every file read, once.

mod conda;
mod index;
mod python;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::{Destination, SecretMount};
use crate::deployment::Deployment;
use crate::error::BuildError;
use crate::files::{DigestCache, ResolvedFiles};
use crate::login::IndexLogins;
use crate::plan::{Base, BuildPlan, PLAN_FORMAT, Python, Step};
use crate::platform::Platform;
use crate::spec::{BaseImage, ImageSpec};
use crate::tag::{self, TagScheme, flytekit};
use crate::validate;

pub use python::{DEFAULT_SUITE, debian_pythons, python_of_suite, suite_for_python};

/// The builder of images for which nobody names one.
const DEFAULT_BUILDER: &str = "default";

/// The way out where only running code knows.
const BY_PYTHON: &str = "`--via python` runs the code and asks flytekit";

/// What a spec is resolved against.
#[derive(Debug)]
pub struct ResolveContext<'a> {
    /// The active deployment.
    pub deployment: &'a Deployment,
    /// Where the spec's paths start.
    pub folder: &'a Path,
    /// Where the spec's own file is, if that is another folder; only for hints.
    pub spec_folder: Option<&'a Path>,
    /// The name of an image that has none.
    pub default_name: &'a str,
    /// The image that `base_image` names, where it is one of ours.
    pub base: Option<&'a Resolved>,
    /// `--builder`.
    pub builder_flag: Option<&'a str>,
    /// `IMAGESPEC_BUILDER`.
    pub builder_variable: Option<&'a str>,
    /// `--registry` or `IMAGESPEC_REGISTRY`.
    pub registry: Option<&'a str>,
    /// `--platform`.
    pub platforms: Option<&'a [Platform]>,
    /// `--tag`, each.
    pub extra_tags: &'a [String],
    /// `--tag-scheme`.
    pub tag_scheme: Option<TagScheme>,
    /// What is known of a declaration that stands in Flyte code.
    pub code: Option<Coded<'a>>,
}

/// What is known of a declaration that stands in Flyte code.
///
/// Its names are those that flytekit computes from the code alone: whatever flags and deployments say of registries
/// and platforms decides where the image goes, and is in no name. The SDK is added to it.
#[derive(Debug, Clone, Copy)]
pub struct Coded<'a> {
    /// flytekit's names, where flytekit was asked.
    pub named: Option<&'a flytekit::Named>,
    /// Files of modules that the code's process had loaded, below `source_root`: these are copied, and no others.
    pub loaded: Option<&'a [String]>,
    /// The SDK, as a requirement.
    pub sdk: &'a str,
}

/// A spec whose meaning is settled.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Name of the builder, and whether a flag asked for it.
    pub builder: (String, bool),
    /// What the image will be called.
    pub destination: Destination,
    /// What is built.
    pub plan: BuildPlan,
    /// The files the plan names.
    pub files: Arc<ResolvedFiles>,
    /// Secrets for the installation of packages.
    pub secrets: Vec<SecretMount>,
    /// The file with settings of registries that the spec names.
    pub registry_config: Option<PathBuf>,
    /// Logins that stood in URLs of package indexes. The plan and the files have none.
    pub logins: IndexLogins,
    /// Options of the builder: the deployment's, overlaid with the spec's.
    pub builder_options: serde_json::Map<String, serde_json::Value>,
    /// What flytekit calls the image, where its names are asked for.
    pub flytekit: Option<flytekit::Named>,
}

/// Resolves a spec. All reading of files happens here.
pub fn resolve(spec: &ImageSpec, cx: &ResolveContext<'_>) -> Result<Resolved, BuildError> {
    resolve_with(spec, cx, &DigestCache::default())
}

/// As [`resolve`], with the digests of files that earlier runs have read. Saving what is learned is up to the
/// caller.
pub fn resolve_with(
    spec: &ImageSpec,
    cx: &ResolveContext<'_>,
    cache: &DigestCache,
) -> Result<Resolved, BuildError> {
    validate::validate(spec)?;
    validate::image_name(spec.name.as_deref().unwrap_or(cx.default_name))?;
    let of_code = cx.code.map(|_| TagScheme::Flytekit);
    let scheme = cx
        .tag_scheme
        .or(cx.deployment.tag_scheme)
        .or(of_code)
        .unwrap_or_default();
    let mut files = ResolvedFiles::default();
    let mut inputs = sources::Inputs::new(cx, cache, &mut files);
    let mut steps = Vec::new();
    if let Some(packages) = spec
        .apt_packages
        .clone()
        .filter(|packages| !packages.is_empty())
    {
        let mut packages = packages;
        packages.sort();
        packages.dedup();
        steps.push(Step::AptPackages { packages });
    }
    steps.extend(conda::packages(spec, &mut inputs)?);
    steps.extend(python::packages(spec, cx, &mut inputs)?);
    steps.extend(sources::source_root(spec, &mut inputs)?);
    steps.extend(sources::copies(spec, &mut inputs)?);
    if let Some(commands) = spec
        .commands
        .clone()
        .filter(|commands| !commands.is_empty())
    {
        steps.push(Step::Run { commands });
    }
    let (entries, logins) = inputs.into_parts();
    let flytekit = match scheme {
        TagScheme::Flytekit => Some(named(spec, cx)?),
        TagScheme::Imagespec => None,
    };
    let plan = BuildPlan {
        format: PLAN_FORMAT,
        platforms: platforms(spec, cx)?,
        base: base(spec, cx)?,
        python: Python {
            version: spec.python_version.as_deref().map(python::minor),
            exec: spec.python_exec.clone(),
        },
        steps,
        entrypoint: spec.entrypoint.clone(),
        env: spec.env.clone().unwrap_or_default(),
        runtime_packages: spec.runtime_packages.clone().unwrap_or_default(),
        helper_images: helper_images(spec)?,
        cuda: spec.cuda.clone(),
        cudnn: spec.cudnn.clone(),
        registry_config: spec.registry_config.clone(),
        files: entries,
        image_id: flytekit.as_ref().map(|named| named.id.clone()),
        lock: None,
    };
    let tag = match (&flytekit, &spec.tag_format) {
        (Some(named), _) => named.tag.clone(),
        (None, Some(format)) => validate::format_tag(format, &tag::canonical(&plan))?,
        (None, None) => tag::canonical(&plan),
    };
    let builder = builder(spec, cx);
    let mut builder_options = spec.builder_options.clone().unwrap_or_default();
    for (key, value) in cx.deployment.builders.get(&builder.0).into_iter().flatten() {
        builder_options.entry(key).or_insert_with(|| value.clone());
    }
    Ok(Resolved {
        builder,
        destination: destination(spec, cx, tag)?,
        plan,
        files: Arc::new(files),
        secrets: secrets(spec, cx)?,
        registry_config: spec
            .registry_config
            .as_ref()
            .map(|file| cx.folder.join(file)),
        logins,
        builder_options,
        flytekit,
    })
}

/// What flytekit calls the image.
fn named(spec: &ImageSpec, cx: &ResolveContext<'_>) -> Result<flytekit::Named, BuildError> {
    if let Some(named) = cx.code.and_then(|code| code.named) {
        return Ok(named.clone());
    }
    let platforms = cx.platforms.filter(|_| cx.code.is_none()).map(|platforms| {
        let platforms: Vec<_> = platforms.iter().map(Platform::to_string).collect();
        platforms.join(",")
    });
    let registry = match cx.code {
        Some(_) => spec.registry.as_deref(),
        // An empty one of the declaration's own is printed, as flytekit does.
        None => registry(spec, cx)
            .0
            .filter(|name| !name.is_empty() || spec.registry.as_deref() == Some("")),
    };
    let around = flytekit::Surroundings {
        folder: cx.folder,
        default_name: cx.default_name,
        registry,
        platform: platforms.as_deref(),
        base: cx.base.and_then(|base| base.flytekit.as_ref()),
    };
    flytekit::name(spec, &around).map_err(|error| match (cx.code, error.unnamed_field()) {
        (Some(_), Some("source_copy_mode")) => error.hint(BY_PYTHON),
        _ => error,
    })
}

/// The registry that counts, and what those call it who pull.
fn registry<'a>(
    spec: &'a ImageSpec,
    cx: &ResolveContext<'a>,
) -> (Option<&'a str>, Option<&'a str>) {
    let deployment = (
        cx.deployment.registry.as_deref(),
        cx.deployment.pull_registry.as_deref(),
    );
    match (cx.registry, spec.registry.as_deref()) {
        (Some(flag), _) => (Some(flag), None),
        (None, Some(spec)) => (Some(spec), None),
        (None, None) => deployment,
    }
}

fn builder(spec: &ImageSpec, cx: &ResolveContext<'_>) -> (String, bool) {
    if let Some(flag) = cx.builder_flag {
        return (flag.to_owned(), true);
    }
    let named = [
        spec.builder.as_deref(),
        cx.builder_variable,
        cx.deployment.builder.as_deref(),
    ];
    (
        named
            .into_iter()
            .flatten()
            .next()
            .unwrap_or(DEFAULT_BUILDER)
            .to_owned(),
        false,
    )
}

fn platforms(spec: &ImageSpec, cx: &ResolveContext<'_>) -> Result<Vec<Platform>, BuildError> {
    let mut platforms = match (cx.platforms, &spec.platform) {
        (Some(platforms), _) => platforms.to_vec(),
        (None, Some(list)) => {
            let parse = |text: &str| {
                text.parse()
                    .map_err(|error| BuildError::input(format!("{error}")).field("platform"))
            };
            list.split(',').map(parse).collect::<Result<_, _>>()?
        }
        (None, None) => vec![Platform::amd64()],
    };
    platforms.sort();
    platforms.dedup();
    Ok(platforms)
}

fn base(spec: &ImageSpec, cx: &ResolveContext<'_>) -> Result<Base, BuildError> {
    match (&spec.base_image, cx.base) {
        (None, _) => Ok(Base::Debian {
            suite: python::suite(spec).to_owned(),
        }),
        (Some(BaseImage::Reference(reference)), _) if reference.trim().is_empty() => {
            let message = format!("expected the reference of an image: `{reference}`");
            Err(BuildError::input(message).field("base_image"))
        }
        (Some(BaseImage::Reference(reference)), _) => Ok(Base::Reference {
            reference: reference.clone(),
        }),
        (Some(_), Some(base)) => Ok(Base::Image {
            plan: base.plan.digest(),
        }),
        (Some(_), None) => Err(BuildError::input(
            "the image that this one starts from is not resolved",
        )
        .field("base_image")),
    }
}

fn destination(
    spec: &ImageSpec,
    cx: &ResolveContext<'_>,
    tag: String,
) -> Result<Destination, BuildError> {
    let (registry, pull_registry) = registry(spec, cx);
    if let Some(registry) = registry {
        validate::registry_name(registry)?;
    }
    for tag in cx.extra_tags {
        validate::format_tag(&format!("{{spec_hash}}{tag}"), "x")?;
    }
    let given = |registry: Option<&str>| {
        registry
            .filter(|registry| !registry.is_empty())
            .map(str::to_lowercase)
    };
    Ok(Destination {
        registry: given(registry),
        pull_registry: given(pull_registry),
        name: spec
            .name
            .as_deref()
            .unwrap_or(cx.default_name)
            .to_lowercase(),
        tag,
        extra_tags: cx.extra_tags.to_vec(),
    })
}

fn helper_images(
    spec: &ImageSpec,
) -> Result<std::collections::BTreeMap<String, String>, BuildError> {
    let known = ["uv_image", "micromamba_image"];
    let image = |(key, value): (&String, &serde_json::Value)| match value.as_str() {
        Some(image) if known.contains(&key.as_str()) => Ok((key.clone(), image.to_owned())),
        Some(_) => Err(
            BuildError::input(format!("unknown key of `builder_config`: `{key}`"))
                .field("builder_config")
                .hint(format!("known keys: {}", known.join(", "))),
        ),
        None => Err(BuildError::input(format!(
            "expected the reference of an image in `builder_config`: `{key}`"
        ))
        .field("builder_config")),
    };
    spec.builder_config.iter().flatten().map(image).collect()
}

fn secrets(spec: &ImageSpec, cx: &ResolveContext<'_>) -> Result<Vec<SecretMount>, BuildError> {
    let mount = |(source, target): &(String, String)| {
        let path = cx.folder.join(source);
        if !path.is_file() {
            return Err(
                BuildError::input(format!("the secret file does not exist: `{source}`"))
                    .field("pip_secret_mounts"),
            );
        }
        Ok(SecretMount {
            source: path,
            target: PathBuf::from(target),
        })
    };
    spec.pip_secret_mounts.iter().flatten().map(mount).collect()
}
