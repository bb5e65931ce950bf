//! The layer of state, from the files of all packages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use imagespec_core::digest::{Digest, Framed};
use imagespec_oci::layer::LayerWriter;
use tokio_util::sync::CancellationToken;

use super::facts::{Facts, Library};
use super::tree::Tree;
use super::{accounts, alternatives, certificates, defaults, dpkg, ld_cache};
use crate::error::DebianError;
use crate::layers::RECIPE;
use crate::merged;
use crate::package::Package;

/// What the bytes of a layer of state depend on, compression aside.
pub fn key(packages: &[Package]) -> Digest {
    let mut digests: Vec<&Digest> = packages.iter().map(|package| &package.sha256).collect();
    digests.sort();
    let mut key = Framed::new("debian state");
    key.number(RECIPE).list(digests, |key, digest| {
        key.digest(digest);
    });
    key.finish()
}

/// Writes the state of a system of exactly `packages`; `file` says where the file of a package is. Packages
/// that are added to a base are given together with the base's own: the layer replaces the base's. Blocking.
pub fn write<W: Write>(
    packages: &[Package],
    file: &dyn Fn(&Package) -> PathBuf,
    layer: &mut LayerWriter<W>,
    cancel: &CancellationToken,
) -> Result<(), DebianError> {
    let mut packages: Vec<&Package> = packages.iter().collect();
    packages.sort_by(|left, right| left.name.cmp(&right.name));
    let facts: Vec<Facts> = packages
        .into_iter()
        .map(|package| Facts::read(package, &file(package), cancel))
        .collect::<Result<_, _>>()?;
    tree(&facts)?.write(layer)
}

fn tree(packages: &[Facts]) -> Result<Tree, DebianError> {
    let kept: BTreeMap<&str, &[u8]> = packages
        .iter()
        .flat_map(|facts| &facts.kept)
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    let all: Vec<_> = packages
        .iter()
        .flat_map(|facts| &facts.list)
        .map(|path| String::from_utf8_lossy(&merged::path(path.as_bytes())).into_owned())
        .collect();
    let paths: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    let architecture = packages
        .iter()
        .map(|facts| facts.package.architecture.as_str())
        .find(|architecture| *architecture != "all")
        .ok_or_else(|| DebianError::Base("they have no architecture".into()))?;
    let table = |name: &str| {
        kept.get(format!("usr/share/base-passwd/{name}.master").as_str())
            .copied()
    };

    let mut tree = Tree::default();
    defaults::write(&mut tree, &kept, &|path| paths.contains(path));
    accounts::write(
        &mut tree,
        table("passwd").unwrap_or_default(),
        table("group").unwrap_or_default(),
    )?;
    alternatives::write(&mut tree, packages);
    if packages
        .iter()
        .any(|facts| facts.package.name == "ca-certificates")
    {
        certificates::write(&mut tree, &kept)?;
    }
    let libraries: Vec<Library> = packages
        .iter()
        .flat_map(|facts| facts.libraries.clone())
        .collect();
    if let Some(cache) = ld_cache::write(&libraries, &paths, architecture) {
        tree.file("etc/ld.so.cache", cache);
    }
    dpkg::write(&mut tree, packages, architecture);
    Ok(tree)
}
