//! Plans as Dockerfiles: shown, or written with their build contexts.

use std::path::Path;
use std::sync::Arc;

use imagespec_core::builder::BuilderConfig;
use imagespec_core::context::{BuildSettings, Destination, Output};
use imagespec_core::dockerfile;
use imagespec_core::error::BuildError;
use imagespec_core::event::Silent;
use imagespec_core::execute::{Candidate, Job, OWN_BASE, OnUnknown, Options, Outcome};
use imagespec_core::plan::Base;
use imagespec_core::platform::Platform;
use imagespec_core::registry::Registry;
use imagespec_debian::ArchiveOptions;
use imagespec_dockerfile::{Base as Written, Site};
use imagespec_oci::image::Image;
use imagespec_oci::images::ImageStore;
use serde_json::Map;

use super::Context;
use super::build::run;
use super::jobs::Work;
use super::resolve::ResolvedTarget;
use crate::args::{Dialect, ProgressForm};
use crate::report::print;

/// Prints the Dockerfiles of targets, or writes that of one target with its context.
pub(super) async fn plan(
    cx: &Context,
    mut targets: Vec<ResolvedTarget>,
    dialect: Option<Dialect>,
    to: Option<&Path>,
) -> Result<(), BuildError> {
    for target in &mut targets {
        // Whoever builds it has settings of its own.
        target.resolved.plan.registry_config = None;
    }
    let archive = ArchiveOptions::default();
    let site = Site {
        host: &cx.host,
        archive: &archive,
        dialect: match dialect.unwrap_or(Dialect::Buildkit) {
            Dialect::Buildkit => dockerfile::Dialect::Buildkit,
            Dialect::Kaniko => dockerfile::Dialect::Kaniko,
        },
        uv: None,
    };
    match (to, &targets[..]) {
        (None, targets) => {
            for target in targets {
                show(site, target, targets.len() > 1)?;
            }
            Ok(())
        }
        (Some(folder), [target]) => write_one(cx, site, target, &cx.folder.join(folder)).await,
        (Some(_), targets) => {
            let names: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
            let message = format!("`--write` names one folder for {} images", names.len());
            Err(BuildError::input(message).hint(format!("name one target: {}", names.join(", "))))
        }
    }
}

fn show(site: Site<'_>, target: &ResolvedTarget, named: bool) -> Result<(), BuildError> {
    let name = reference(target).unwrap_or_else(|| OWN_BASE.to_owned());
    let settings = BuildSettings::default();
    let build = target.context(&Output::Docker, &settings, &Silent);
    let text = imagespec_dockerfile::print(site, &target.resolved.plan, &build, &name)?;
    if named {
        print(&format!("# {}", target.name))?;
    }
    if target.resolved.plan.has_made_base() {
        print("# `--write DIR` puts the base and all that is mounted here beside this file.")?;
    }
    print(text.trim_end())
}

/// What the image starts from, where that has a name.
fn reference(target: &ResolvedTarget) -> Option<String> {
    let plan = &target.resolved.plan;
    match (&plan.base, &target.base) {
        _ if plan.has_made_base() => None,
        (Base::Reference { reference }, _) => Some(reference.clone()),
        (_, Some(base)) => Some(base.resolved.destination.reference()),
        _ => None,
    }
}

async fn write_one(
    cx: &Context,
    site: Site<'_>,
    target: &ResolvedTarget,
    to: &Path,
) -> Result<(), BuildError> {
    let plan = &target.resolved.plan;
    if plan.has_conda() && !matches!(plan.base, Base::Debian { .. }) {
        let message = "Conda packages are written beside a Dockerfile over our own base only";
        return Err(BuildError::input(message)
            .field("conda_packages")
            .hint("leave `base_image` out, or have `imagespec build` make the image"));
    }
    let base = match reference(target) {
        Some(reference) => Written::Image(reference),
        None => Written::Layers(base_layers(cx, target).await?),
    };
    let resolved = &target.resolved;
    let settings = BuildSettings::default();
    let build = target.context(&Output::Docker, &settings, &Silent);
    imagespec_dockerfile::write(site, &resolved.plan, &build, &base, to).await?;
    print(&to.join("Dockerfile").display().to_string())
}

/// Makes our own base, and says where its layers are.
async fn base_layers(
    cx: &Context,
    target: &ResolvedTarget,
) -> Result<Vec<std::path::PathBuf>, BuildError> {
    let registry = Registry::linked()?;
    let entry = registry.get("native")?;
    let builder: Arc<_> = (entry.create)(BuilderConfig {
        name: entry.name,
        host: &cx.host,
        options: &Map::new(),
    })?;
    let plan = target.resolved.plan.base_only();
    let platform = plan
        .platforms
        .first()
        .cloned()
        .unwrap_or_else(Platform::host);
    let job = Job {
        target: target.name.clone(),
        destination: Destination {
            registry: None,
            pull_registry: None,
            name: OWN_BASE.to_owned(),
            tag: plan.digest().hex(),
            extra_tags: Vec::new(),
        },
        plan,
        output: Some(Output::Store),
        push: false,
        files: target.resolved.files.clone(),
        secrets: Vec::new(),
        logins: target.resolved.logins.clone(),
        settings: BuildSettings {
            force: true,
            ..BuildSettings::default()
        },
        builder: Candidate {
            name: entry.name,
            builder,
        },
        fallback: None,
        base_maker: None,
        base: None,
    };
    let work = Work {
        jobs: vec![job],
        targets: vec![0],
        options: Options {
            jobs: 1,
            on_unknown: OnUnknown::Fail,
            dry_run: false,
        },
    };
    let mut results = run(&work, ProgressForm::Auto).await;
    let Some(Outcome::Done(image)) = results.pop().transpose()? else {
        return Err(BuildError::failed("no base was made"));
    };
    let store = ImageStore::open(&cx.host.cache_dir);
    let digest = image
        .digest
        .ok_or_else(|| BuildError::failed("the base has no digest"))?;
    let image = Image::read(store.blobs(), &digest, &platform).map_err(|error| {
        BuildError::failed("cannot read the base in the local store").caused_by(&error)
    })?;
    let layers = image.layers.iter();
    Ok(layers
        .map(|layer| store.blobs().path(&layer.digest))
        .collect())
}
