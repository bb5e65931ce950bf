//! What the state needs to know of a package: one pass over its file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use super::elf;
use crate::base::triplet;
use crate::deb::{Deb, Kind};
use crate::deb822::{self, Paragraph};
use crate::error::DebianError;
use crate::merged;
use crate::package::Package;

/// Files whose content configures the base.
const KEPT: [&str; 7] = [
    "usr/share/base-passwd/",
    "usr/share/base-files/",
    "usr/share/libc-bin/",
    "usr/share/ca-certificates/",
    "usr/share/pam/common-",
    "usr/share/debianutils/shells",
    "etc/skel/",
];
/// The most bytes of a file that is kept or looked into.
const CONTENT_LIMIT: u64 = 256 << 20;

/// A shared library in a folder the dynamic loader searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Library {
    pub(super) soname: String,
    /// Below the root, merged.
    pub(super) path: String,
}

/// One package.
pub(super) struct Facts {
    pub(super) package: Package,
    /// The text of its `control` file.
    pub(super) control: String,
    pub(super) paragraph: Paragraph,
    /// The other files of its control part, with their modes.
    pub(super) files: BTreeMap<String, (u32, Vec<u8>)>,
    /// Its paths, as they are in the package, in its order.
    pub(super) list: Vec<String>,
    /// MD5 of its configuration files, by path without the leading slash.
    pub(super) conffiles: BTreeMap<String, String>,
    pub(super) kept: BTreeMap<String, Vec<u8>>,
    pub(super) libraries: Vec<Library>,
}

impl Facts {
    pub(super) fn read(
        package: &Package,
        file: &Path,
        cancel: &CancellationToken,
    ) -> Result<Self, DebianError> {
        let deb = Deb::open(file, package)?;
        let mut files = deb.control()?;
        let (_, control) = files.remove("control").unwrap_or_default();
        let control = String::from_utf8_lossy(&control).into_owned();
        let damaged = || DebianError::Package {
            path: file.to_owned(),
            problem: "its control file is damaged".into(),
        };
        let paragraph = deb822::parse(&control)?
            .into_iter()
            .next()
            .ok_or_else(damaged)?;
        if paragraph.get("Package") != Some(&package.name)
            || paragraph.get("Version") != Some(&package.version)
        {
            return Err(damaged());
        }
        let mut facts = Self {
            package: package.clone(),
            control,
            paragraph,
            files,
            list: Vec::new(),
            conffiles: BTreeMap::new(),
            kept: BTreeMap::new(),
            libraries: Vec::new(),
        };
        let conffiles: BTreeSet<String> = facts
            .lines("conffiles")
            .filter_map(|line| line.strip_prefix('/').map(ToOwned::to_owned))
            .collect();
        deb.data(&mut |entry, content| {
            if cancel.is_cancelled() {
                return Err(DebianError::Interrupted);
            }
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            if let Kind::File(size) = entry.kind {
                facts.look(&path, size, content, &conffiles)?;
            }
            facts.list.push(path);
            Ok(())
        })?;
        Ok(facts)
    }

    fn look(
        &mut self,
        path: &str,
        size: u64,
        content: &mut dyn Read,
        conffiles: &BTreeSet<String>,
    ) -> Result<(), DebianError> {
        let is_conffile = conffiles.contains(path);
        let is_kept = KEPT.iter().any(|prefix| path.starts_with(prefix));
        let real = String::from_utf8_lossy(&merged::path(path.as_bytes())).into_owned();
        let is_library = is_searched(&real, &self.package.architecture);
        if !(is_conffile || is_kept || is_library) || size > CONTENT_LIMIT {
            return Ok(());
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        if is_conffile {
            self.conffiles
                .insert(path.to_owned(), hex::encode(Md5::digest(&bytes)));
        }
        if let Some(soname) = is_library.then(|| elf::soname(&bytes)).flatten() {
            self.libraries.push(Library { soname, path: real });
        }
        if is_kept {
            self.kept.insert(path.to_owned(), bytes);
        }
        Ok(())
    }

    /// The lines of a file of the control part, without comments and empty ones.
    pub(super) fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let text = self.files.get(name).map(|(_, bytes)| bytes.as_slice());
        std::str::from_utf8(text.unwrap_or_default())
            .unwrap_or_default()
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
    }

    /// Whether the package has a path, given without the leading slash.
    pub(super) fn has(&self, path: &str) -> bool {
        self.list
            .iter()
            .any(|own| *merged::path(own.as_bytes()) == *path.as_bytes())
    }
}

/// Whether the dynamic loader looks for libraries in the folder of a path.
fn is_searched(path: &str, architecture: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else {
        return false;
    };
    let searched = triplet(architecture).map(|triplet| format!("usr/lib/{triplet}"));
    (folder == "usr/lib" || Some(folder) == searched.as_deref())
        && (name.starts_with("lib") || name.starts_with("ld"))
        && name.contains(".so")
}
