//! Layers of package data: at most four, grouped so that an update of one package disturbs one of them.

use std::io::{Read, Write};
use std::path::PathBuf;

use imagespec_core::contract;
use imagespec_core::digest::{Digest, Framed};
use imagespec_oci::layer::{LayerWriter, Metadata};
use tokio_util::sync::CancellationToken;

use crate::deb::{Deb, Entry, Kind};
use crate::error::DebianError;
use crate::merged;
use crate::package::Package;

/// Part of every key: to be raised whenever the bytes of layers change for the same packages.
pub const RECIPE: u64 = 2;

/// A layer to be written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerPlan {
    /// What the layer's bytes depend on, compression aside.
    pub key: Digest,
    /// What it holds: `debian libc`.
    pub title: String,
    /// Its packages, by name.
    pub members: Vec<Package>,
    /// Whether it has the links of a merged `/usr`.
    pub links: bool,
}

/// The groups, from what changes least to what changes most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Libc,
    Essential,
    Python,
    Rest,
}

impl Group {
    fn of(package: &Package) -> Self {
        let name = package.name.as_str();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if starts(&[
            "libc6",
            "libc-bin",
            "libgcc-s1",
            "libcrypt1",
            "gcc-",
            "libstdc++6",
        ]) {
            Self::Libc
        } else if starts(&["python3", "libpython3"]) {
            Self::Python
        } else if package.essential || package.priority == "required" {
            Self::Essential
        } else {
            Self::Rest
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Libc => "debian libc",
            Self::Essential => "debian essential",
            Self::Python => "debian python",
            Self::Rest => "debian packages",
        }
    }
}

/// The layers of a base's packages.
pub fn group(packages: &[Package]) -> Vec<LayerPlan> {
    let groups = [Group::Libc, Group::Essential, Group::Python, Group::Rest];
    let of = |group: Group| {
        packages
            .iter()
            .filter(move |package| Group::of(package) == group)
    };
    let plans = groups
        .into_iter()
        .map(|group| (group, of(group).cloned().collect::<Vec<_>>()));
    plans
        .filter(|(_, members)| !members.is_empty())
        .enumerate()
        .map(|(at, (group, members))| plan(group.title(), members, at == 0))
        .collect()
}

/// The layer of packages that are added to a base.
pub fn additional(packages: &[Package]) -> LayerPlan {
    plan("debian apt_packages", packages.to_vec(), false)
}

fn plan(title: &str, mut members: Vec<Package>, links: bool) -> LayerPlan {
    members.sort_by(|left, right| left.name.cmp(&right.name));
    let mut key = Framed::new("debian layer");
    key.number(RECIPE).number(u64::from(links));
    key.list(&members, |key, package| {
        key.digest(&package.sha256);
    });
    LayerPlan {
        key: key.finish(),
        title: title.to_owned(),
        members,
        links,
    }
}

/// Writes the data of a layer's packages; `file` says where the file of a package is. Blocking; nothing is
/// held but buffers.
pub fn write<W: Write>(
    plan: &LayerPlan,
    file: &dyn Fn(&Package) -> PathBuf,
    layer: &mut LayerWriter<W>,
    cancel: &CancellationToken,
) -> Result<(), DebianError> {
    if plan.links {
        let architecture = plan
            .members
            .iter()
            .map(|package| package.architecture.as_str());
        let architecture = architecture
            .clone()
            .find(|name| *name != "all")
            .unwrap_or("all");
        for (link, target) in merged::links(architecture) {
            layer.directory(target, &Metadata::new(0o755, 0))?;
            layer.symlink(link, target, &Metadata::new(0o777, 0))?;
        }
    }
    for package in &plan.members {
        let deb = Deb::open(&file(package), package)?;
        deb.data(&mut |entry, content| {
            if cancel.is_cancelled() {
                return Err(DebianError::Interrupted);
            }
            if merged::is_excluded(&entry.path) {
                return Ok(());
            }
            add(layer, entry, content)
        })?;
    }
    Ok(())
}

fn add<W: Write>(
    layer: &mut LayerWriter<W>,
    entry: Entry,
    content: &mut dyn Read,
) -> Result<(), DebianError> {
    let is_root_link = merged::is_link(&entry.path) && matches!(entry.kind, Kind::Symlink(_));
    if entry.path.is_empty() || is_root_link {
        return Ok(());
    }
    let path = merged::path(&entry.path);
    let metadata = Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        ..Metadata::new(entry.mode, 0)
    };
    match entry.kind {
        Kind::File(size) => layer.file(&path, &metadata, size, content)?,
        Kind::Directory => layer.directory(&path, &directory(&path, metadata))?,
        Kind::Symlink(target) => layer.symlink(&path, &target, &metadata)?,
        Kind::Hardlink(target) => layer.hardlink(&path, &merged::path(&target), &metadata)?,
    }
    Ok(())
}

/// A folder's metadata: the package's own, except where the image's contract has its own.
pub(crate) fn directory(path: &[u8], own: Metadata) -> Metadata {
    let (mode, uid, gid) = contract::directory(path);
    if (mode, uid, gid) == (0o755, 0, 0) {
        return own;
    }
    Metadata {
        gid,
        ..Metadata::new(mode, uid)
    }
}
