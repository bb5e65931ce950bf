//! The local image store and the caches.

use std::path::Path;
use std::time::Duration;

use imagespec_core::error::BuildError;
use imagespec_oci::images::{ImageRecord, ImageStore, Prune};
use serde_json::json;

use super::Context;
use crate::args::CacheCommand;
use crate::report::{Table, bytes, print, print_json};

pub(super) fn images(cx: &Context, json: bool) -> Result<u8, BuildError> {
    let store = ImageStore::open(&cx.host.cache_dir);
    let records = store.list().map_err(|error| unreadable(&error))?;
    if json {
        print_json(&json!({ "images": records }))?;
    } else {
        print(&table(&records).render())?;
    }
    Ok(0)
}

fn table(records: &[ImageRecord]) -> Table {
    let mut table = Table::new(["reference", "digest", "platforms", "builder", "size"]);
    for record in records {
        let platforms: Vec<_> = record.platforms.iter().map(ToString::to_string).collect();
        table.row([
            record.reference.clone(),
            record.descriptor.digest.to_string(),
            platforms.join(","),
            record.builder.clone(),
            bytes(record.size),
        ]);
    }
    table
}

pub(super) fn cache(cx: &Context, command: &CacheCommand) -> Result<u8, BuildError> {
    let root = &cx.host.cache_dir;
    match command {
        CacheCommand::Info { json } => info(root, *json),
        CacheCommand::Prune { all: true, .. } => prune(
            root,
            Prune {
                grace: Duration::ZERO,
                images: true,
                layers: true,
                unused: Duration::ZERO,
                size: None,
            },
        ),
        CacheCommand::Prune {
            older_than,
            max_size,
            ..
        } => prune(
            root,
            Prune {
                unused: Duration::from_secs(u64::from(*older_than) * 24 * 3600),
                size: max_size.map(|size| u64::from(size) * 1_000_000_000),
                ..Prune::default()
            },
        ),
    }
}

/// Says how much each part of the cache holds. A cache that is not there yet holds nothing.
fn info(root: &Path, json: bool) -> Result<u8, BuildError> {
    let mut parts = Vec::new();
    for entry in fs_err::read_dir(root).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            parts.push((name, size(&entry.path())));
        }
    }
    parts.sort();
    if json {
        let parts: Vec<_> = parts
            .iter()
            .map(|(name, size)| json!({ "name": name, "size": size }))
            .collect();
        print_json(&json!({ "folder": root, "parts": parts }))?;
        return Ok(0);
    }
    print(&root.display().to_string())?;
    let mut table = Table::new(["part", "size"]);
    for (name, size) in &parts {
        table.row([name.clone(), bytes(*size)]);
    }
    let all = parts.iter().map(|(_, size)| size).sum();
    table.row(["all".to_owned(), bytes(all)]);
    print(&table.render())?;
    Ok(0)
}

fn prune(root: &Path, prune: Prune) -> Result<u8, BuildError> {
    let pruned = ImageStore::open(root).prune(prune);
    let pruned = pruned.map_err(|error| unreadable(&error))?;
    let Some(pruned) = pruned else {
        return Err(
            BuildError::unavailable("another process builds in this cache")
                .hint("try again when it is done"),
        );
    };
    print(&format!(
        "removed {} blobs and {} others, {}",
        pruned.blobs,
        pruned.others,
        bytes(pruned.bytes)
    ))?;
    Ok(0)
}

fn unreadable(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot use the image store").caused_by(error)
}

/// Bytes of all files below a folder, without following links. What cannot be read counts nothing.
fn size(folder: &Path) -> u64 {
    let of = |entry: fs_err::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    entries.map(of).sum()
}
