//! Whether a program links the builders that its manifest lists.

use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The builders that the package in the folder `package` depends on directly, at any of its dependency kinds
/// but build scripts, and that are not among `known`, the names its program has registered; sorted.
///
/// A crate that is only listed in `Cargo.toml` is not linked, and its builder does not exist for the program,
/// without any message. So a crate with builders declares them in its manifest, and the program compares:
///
/// ```toml
/// [package.metadata.imagespec]
/// builders = ["noop"]
/// ```
///
/// Fails where `cargo metadata --locked` does.
pub fn unlinked(package: &Path, known: &[&str]) -> Result<Vec<String>, cargo_metadata::Error> {
    let manifest = package.join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(&manifest)
        .other_options(["--locked".to_owned()])
        .exec()?;
    let root = metadata.root_package().map(|package| &package.id);
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let mut missing: Vec<String> = nodes
        .filter(|node| Some(&node.id) == root)
        .flat_map(|node| &node.deps)
        .filter(|dependency| {
            let linked =
                |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Development);
            dependency.dep_kinds.iter().any(|info| linked(info.kind))
        })
        .flat_map(|dependency| declared(&metadata[&dependency.pkg].metadata))
        .filter(|builder| !known.contains(&builder.as_str()))
        .collect();
    missing.sort();
    Ok(missing)
}

/// The builders that a package's `[package.metadata.imagespec]` declares.
fn declared(metadata: &serde_json::Value) -> Vec<String> {
    metadata["imagespec"]["builders"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}
