//! Commands that look and tell.

use std::path::Path;

use imagespec_core::builder::{Availability, BuilderConfig};
use imagespec_core::error::BuildError;
use imagespec_core::plan::{Base, BuildPlan, Step};
use imagespec_core::registry::Registry;
use imagespec_oci::images::{ImageStore, Prune};
use serde_json::{Map, json};

use super::Context;
use super::data::{print, print_json};
use super::jobs::meant;
use crate::args::{CacheCommand, PlanFormat, Select};
use crate::report::bytes;

pub(super) fn tag(cx: &Context, select: &Select) -> Result<u8, BuildError> {
    for meant in meant(cx, &select.targets, &select.resolve)? {
        print(&meant.resolved.destination.pull_reference())?;
    }
    Ok(0)
}

pub(super) fn plan(cx: &Context, select: &Select, format: PlanFormat) -> Result<u8, BuildError> {
    let all = meant(cx, &select.targets, &select.resolve)?;
    if format == PlanFormat::Json {
        let plans: Vec<_> = all
            .iter()
            .map(|meant| {
                let resolved = &meant.resolved;
                json!({ "target": meant.name, "reference": resolved.destination.reference(), "builder": resolved.builder.0,
                    "digest": resolved.plan.digest(), "plan": resolved.plan })
            })
            .collect();
        print_json(&json!({ "plans": plans }))?;
        return Ok(0);
    }
    for meant in all {
        let resolved = &meant.resolved;
        print(&format!(
            "{}: {} with `{}`",
            meant.name,
            resolved.destination.reference(),
            resolved.builder.0
        ))?;
        for line in lines(&resolved.plan) {
            print(&format!("  {line}"))?;
        }
    }
    Ok(0)
}

fn lines(plan: &BuildPlan) -> Vec<String> {
    let platforms: Vec<_> = plan.platforms.iter().map(ToString::to_string).collect();
    let base = match &plan.base {
        Base::Debian { suite } => format!("Debian {suite}"),
        Base::Reference { reference } => reference.clone(),
        Base::Image { plan } => format!("the image of plan {plan}"),
    };
    let mut lines = vec![format!("from {base} for {}", platforms.join(", "))];
    for step in &plan.steps {
        lines.push(match step {
            Step::AptPackages { packages } => format!("apt_packages: {}", packages.join(" ")),
            Step::PythonPackages {
                requirements,
                packages,
                ..
            } => {
                let file = requirements
                    .iter()
                    .map(|requirements| requirements.path.trim_start_matches("python/"));
                let all: Vec<_> = file.chain(packages.iter().map(String::as_str)).collect();
                format!(
                    "python packages: {}",
                    if all.is_empty() {
                        "none".to_owned()
                    } else {
                        all.join(" ")
                    }
                )
            }
            Step::CondaPackages { packages, .. } => {
                format!("conda_packages: {}", packages.join(" "))
            }
            Step::Copy { field, from, to } => {
                format!("{field}: {} files to {to}", plan.entries(from).count())
            }
            Step::Run { commands } => format!("commands: {}", commands.join(" && ")),
            other => other.field().to_owned(),
        });
    }
    let env: Vec<_> = plan.env.keys().map(String::as_str).collect();
    if !env.is_empty() {
        lines.push(format!("env: {}", env.join(" ")));
    }
    if let Some(entrypoint) = &plan.entrypoint {
        lines.push(format!("entrypoint: {entrypoint:?}"));
    }
    lines
}

pub(super) async fn builders(cx: &Context, json: bool) -> Result<u8, BuildError> {
    let registry = Registry::linked()?;
    let mut found = Vec::new();
    for entry in registry.entries() {
        let builder = (entry.create)(BuilderConfig {
            host: &cx.host,
            options: &Map::new(),
        })?;
        found.push((entry, builder.capabilities(), builder.probe().await));
    }
    if json {
        let document: Vec<_> = found
            .iter()
            .map(|(entry, able, availability)| {
                let options: Map<_, _> = entry.options.iter().map(|(name, meaning)| ((*name).to_owned(), json!(meaning))).collect();
                json!({ "name": entry.name, "aliases": entry.aliases, "summary": entry.summary, "fallback": entry.fallback,
                    "options": options, "capabilities": able, "availability": availability })
            })
            .collect();
        print_json(&json!({ "builders": document }))?;
        return Ok(0);
    }
    for (entry, able, availability) in found {
        let aliases = if entry.aliases.is_empty() {
            String::new()
        } else {
            format!(" ({})", entry.aliases.join(", "))
        };
        print(&format!("{}{aliases}  {}", entry.name, entry.summary))?;
        match availability {
            Availability::Ready { detail } => print(&format!("  works here: {detail}"))?,
            Availability::Missing { reason, hint } => {
                print(&format!("  does not work here: {reason}\n  hint: {hint}"))?;
            }
        }
        let able: Vec<_> = able
            .into_iter()
            .map(imagespec_core::builder::Capability::name)
            .collect();
        if !able.is_empty() {
            print(&format!("  can: {}", able.join(", ")))?;
        }
    }
    Ok(0)
}

pub(super) fn images(cx: &Context, json: bool) -> Result<u8, BuildError> {
    let records = ImageStore::open(&cx.host.cache_dir)
        .list()
        .map_err(|error| unreadable(&error))?;
    if json {
        print_json(&json!({ "images": records }))?;
        return Ok(0);
    }
    for record in records {
        print(&format!(
            "{}@{} {}",
            record.reference,
            record.descriptor.digest,
            bytes(record.size)
        ))?;
    }
    Ok(0)
}

pub(super) fn cache(cx: &Context, command: &CacheCommand) -> Result<u8, BuildError> {
    let root = &cx.host.cache_dir;
    match command {
        CacheCommand::Info => {
            print(&format!("{}", root.display()))?;
            let Ok(entries) = fs_err::read_dir(root) else {
                return Ok(0);
            };
            let mut names: Vec<_> = entries
                .filter_map(Result::ok)
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name())
                .collect();
            names.sort();
            for name in names {
                print(&format!(
                    "  {:<12} {}",
                    name.to_string_lossy(),
                    bytes(size(&root.join(&name)))
                ))?;
            }
        }
        CacheCommand::Prune { all } => {
            let store = ImageStore::open(root);
            if *all {
                for record in store.list().map_err(|error| unreadable(&error))? {
                    store
                        .remove(&record.reference)
                        .map_err(|error| unreadable(&error))?;
                }
            }
            let grace = if *all {
                std::time::Duration::ZERO
            } else {
                Prune::default().grace
            };
            match store
                .prune(Prune {
                    grace,
                    layers: *all,
                })
                .map_err(|error| unreadable(&error))?
            {
                Some(pruned) => print(&format!(
                    "removed {} blobs, {}",
                    pruned.blobs,
                    bytes(pruned.bytes)
                ))?,
                None => {
                    return Err(
                        BuildError::unavailable("another process builds in this cache")
                            .hint("try again when it is done"),
                    );
                }
            }
        }
    }
    Ok(0)
}

fn unreadable(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot use the image store").caused_by(error)
}

/// Bytes of all files below a folder. What cannot be read counts nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return 0;
    };
    let of = |entry: fs_err::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}
