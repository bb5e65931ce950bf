//! What a package brings, found out once and kept: what is where, and which Python distributions it has.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use imagespec_core::digest::{Digest, Framed};
use imagespec_core::host::Host;
use imagespec_oci::layer::EntryKind;
use imagespec_oci::store::write_atomically;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::PREFIX;
use crate::archive::{Part, is_inside, read};
use crate::error::CondaError;
use crate::prefix::Replaced;
use crate::said::said_of;
use crate::solve::Package;

/// Version of what is found: part of the name under which it is kept.
const RECIPE: u64 = 2;
/// The most that is read of the metadata of a Python distribution, in bytes.
const METADATA: u64 = 1 << 20;

/// Where an environment has what its Python finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Version of its Python, as `3.12`.
    pub python: String,
    /// The folder of Python packages, relative to the environment.
    pub site_packages: String,
}

/// What a package brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its files, by their path in the package.
    pub(crate) files: BTreeMap<String, File>,
    /// Commands that are functions of Python modules.
    pub(crate) commands: Vec<Command>,
    /// Python distributions.
    pub distributions: Vec<Distribution>,
    /// Whether it wants to run something once it is installed.
    pub runs: bool,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Its path in the environment.
    pub(crate) to: String,
    pub(crate) kind: Kind,
    /// Where it was built, if it says so.
    pub(crate) built: Option<Built>,
    /// Size and digest in the package.
    pub(crate) size: u64,
    pub(crate) digest: Option<Digest>,
    /// Size and digest in the environment.
    pub(crate) size_in_prefix: u64,
    pub(crate) digest_in_prefix: Option<Digest>,
}

/// Where a file was built: a folder that it names, and that is another where it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Built {
    pub(crate) folder: String,
    /// Whether the file is a program or a library, whose size must not change.
    pub(crate) binary: bool,
}

/// What a path of a package is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    File,
    Symlink,
    Directory,
}

/// A command that is a function of a Python module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) module: String,
    pub(crate) function: String,
}

/// A Python distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Its name, as written.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The header of its metadata (PEP 566).
    pub metadata: String,
}

impl Layout {
    /// That of an environment of these packages.
    pub fn of(packages: &[Package]) -> Result<Self, CondaError> {
        let python = packages.iter().find(|package| package.name() == "python");
        let python = python.ok_or_else(|| {
            CondaError::Unsolvable(io::Error::other("the environment has no Python"))
        })?;
        let record = &python.record.package_record;
        let version = record.version.version().as_major_minor();
        let (major, minor) = version.ok_or_else(|| {
            CondaError::package(&python.file(), "its version is that of no Python")
        })?;
        let python = format!("{major}.{minor}");
        let usual = || format!("lib/python{python}/site-packages");
        let site_packages = record.python_site_packages_path.clone();
        let site_packages = site_packages.unwrap_or_else(usual);
        if !is_inside(&site_packages) {
            return Err(CondaError::package(
                "python",
                "its `python_site_packages_path` leads out",
            ));
        }
        Ok(Self {
            python,
            site_packages,
        })
    }

    /// Where a file of a package goes.
    fn place(&self, noarch: bool, path: &str) -> String {
        let rest = |folder: &str| path.strip_prefix(folder).filter(|_| noarch);
        if let Some(rest) = rest("site-packages/") {
            format!("{}/{rest}", self.site_packages)
        } else if let Some(rest) = rest("python-scripts/") {
            format!("bin/{rest}")
        } else {
            path.to_owned()
        }
    }
}

impl Facts {
    /// Of a package whose file is here, as they are known, or found out now. Blocking.
    pub fn of(host: &Host, package: &Package, layout: &Layout) -> Result<Self, CondaError> {
        let kept = Self::path(host, package, layout);
        if let Some(known) = fs_err::read(&kept)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            return Ok(known);
        }
        let facts = Self::find(&crate::solve::file(host, package), package, layout)?;
        write_atomically(&kept, &serde_json::to_vec(&facts).map_err(io::Error::from)?)?;
        Ok(facts)
    }

    /// Whether they are known, so that the file of the package need not be here.
    pub fn are_known(host: &Host, package: &Package, layout: &Layout) -> bool {
        Self::path(host, package, layout).is_file()
    }

    fn path(host: &Host, package: &Package, layout: &Layout) -> PathBuf {
        let mut key = Framed::new("imagespec conda facts");
        key.number(RECIPE)
            .digest(&package.digest)
            .text(PREFIX)
            .text(&layout.python)
            .text(&layout.site_packages);
        let folder = crate::wire::cache(host).join("facts");
        folder.join(format!("{}.json", key.finish().hex()))
    }

    /// Looks into the file of a package.
    pub fn find(file: &Path, package: &Package, layout: &Layout) -> Result<Self, CondaError> {
        let name = package.file();
        let noarch = package.record.package_record.noarch.is_python();
        let (said, commands) = said_of(file, &name, noarch)?;
        let mut files = BTreeMap::new();
        let mut distributions = Vec::new();
        read(file, Part::Data, &mut |path, entry, content| {
            let Some(said) = said.get(path) else {
                return Ok(());
            };
            let refused =
                |problem: &str| CondaError::package(&name, format!("{problem}: `{path}`"));
            let kind = match entry.kind {
                EntryKind::File | EntryKind::Hardlink => Kind::File,
                EntryKind::Symlink => Kind::Symlink,
                EntryKind::Directory => Kind::Directory,
                EntryKind::Fifo | EntryKind::Character(..) | EntryKind::Block(..) => {
                    return Err(refused("it has a special file"));
                }
            };
            let to = layout.place(noarch, path);
            let mut found = File {
                to,
                kind,
                built: said.built.clone().filter(|_| kind == Kind::File),
                size: entry.size,
                digest: said.digest,
                size_in_prefix: entry.size,
                digest_in_prefix: said.digest,
            };
            if entry.kind == EntryKind::File {
                if let Some(Built { folder, binary }) = &found.built {
                    if *binary && folder.len() < PREFIX.len() {
                        return Err(refused("it was built in a folder whose path is too short"));
                    }
                    let mut hash = Hashed(Sha256::new());
                    let mut replaced = Replaced::new(content, folder, PREFIX, *binary);
                    found.size_in_prefix = io::copy(&mut replaced, &mut hash)?;
                    found.digest_in_prefix = Some(Digest::from_bytes(hash.0.finalize().into()));
                } else if is_metadata(&found.to, layout) {
                    let mut text = Vec::new();
                    content.take(METADATA).read_to_end(&mut text)?;
                    distributions.extend(distribution(&String::from_utf8_lossy(&text)));
                }
            }
            if files.insert(path.to_owned(), found).is_some() {
                return Err(refused("it has a path twice"));
            }
            Ok(())
        })?;
        link(file, &mut files)?;
        if let Some(absent) = said.keys().find(|path| !files.contains_key(*path)) {
            let problem = format!("it has no file of a path that it lists: `{absent}`");
            return Err(CondaError::package(&name, problem));
        }
        let script = format!("bin/.{}-post-link.sh", package.name());
        let runs = files.contains_key(&script);
        Ok(Self {
            files,
            commands,
            distributions,
            runs,
        })
    }
}

/// Gives further names of a file its size and digest.
fn link(file: &Path, files: &mut BTreeMap<String, File>) -> Result<(), CondaError> {
    let mut links = Vec::new();
    read(file, Part::Data, &mut |path, entry, _| {
        if entry.kind == EntryKind::Hardlink && files.contains_key(path) {
            let target = String::from_utf8_lossy(&entry.target);
            let target = target.trim_start_matches("./").to_owned();
            links.push((path.to_owned(), target));
        }
        Ok(())
    })?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    for (path, target) in links {
        let of = files.get(&target).filter(|file| file.kind == Kind::File);
        let of = of.cloned().ok_or_else(|| {
            CondaError::package(
                &name,
                format!("it has a link to what it does not have: `{path}`"),
            )
        })?;
        if let Some(link) = files.get_mut(&path) {
            let to = std::mem::take(&mut link.to);
            *link = File { to, ..of };
        }
    }
    Ok(())
}

/// Whether a path is that of the metadata of a Python distribution.
fn is_metadata(path: &str, layout: &Layout) -> bool {
    let below = path
        .strip_prefix(&layout.site_packages)
        .and_then(|rest| rest.strip_prefix('/'));
    let Some(below) = below else { return false };
    match below.split_once('/') {
        Some((folder, "METADATA")) => folder.ends_with(".dist-info"),
        Some((folder, "PKG-INFO")) => folder.ends_with(".egg-info"),
        Some(_) => false,
        None => below.ends_with(".egg-info"),
    }
}

/// The header of the metadata of a Python distribution.
fn distribution(text: &str) -> Option<Distribution> {
    let text = text.replace("\r\n", "\n");
    let header = text.split("\n\n").next().unwrap_or_default();
    let field = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let wanted = [
        "Metadata-Version:",
        "Name:",
        "Version:",
        "Requires-Dist:",
        "Requires-Python:",
        "Provides-Extra:",
    ];
    let is_wanted = |line: &&str| wanted.iter().any(|name| line.starts_with(name));
    let lines: Vec<_> = header.lines().filter(is_wanted).collect();
    Some(Distribution {
        name: field("Name:")?,
        version: field("Version:")?,
        metadata: lines.join("\n") + "\n",
    })
}

struct Hashed(Sha256);

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use imagespec_core::context::Compression;
    use imagespec_oci::layer::{LayerWriter, contract_parents};
    use tar::EntryType;

    use super::*;
    use crate::layers::{Member, write};

    const PATHS: &str =
        r#"{"paths": [{"_path": "share/a", "path_type": "hardlink"}], "paths_version": 1}"#;

    fn sample() -> Package {
        let digest = "0".repeat(64);
        serde_json::from_value(serde_json::json!({
            "record": {
                "name": "sample", "version": "1.0", "build": "0", "build_number": 0, "subdir": "noarch",
                "noarch": "python", "fn": "sample-1.0-0.tar.bz2", "url": "https://conda.test/sample-1.0-0.tar.bz2",
                "sha256": digest, "depends": [],
            },
            "digest": format!("sha256:{digest}"),
        }))
        .expect("a package")
    }

    /// An entry of an archive: its path, what it is, and its content or where it leads.
    type Entry<'a> = (&'a str, EntryType, &'a str);

    fn packed(entries: &[Entry<'_>]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let file =
            fs_err::File::create(folder.path().join("sample-1.0-0.tar.bz2")).expect("a file");
        let mut tar = tar::Builder::new(bzip2::write::BzEncoder::new(
            file,
            bzip2::Compression::fast(),
        ));
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            let name = &mut header.as_ustar_mut().expect("ustar").name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let is_file = *kind == EntryType::Regular;
            header.set_size(if is_file { content.len() as u64 } else { 0 });
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name_literal(content).expect("a target");
            }
            header.set_cksum();
            let content = if is_file { content.as_bytes() } else { &[] };
            tar.append(&header, content).expect("an entry");
        }
        tar.into_inner()
            .expect("a tar")
            .finish()
            .expect("an archive");
        folder
    }

    fn installed(entries: &[Entry<'_>]) -> Result<Facts, CondaError> {
        let folder = packed(entries);
        let file = folder.path().join("sample-1.0-0.tar.bz2");
        let layout = Layout {
            python: "3.12".to_owned(),
            site_packages: "lib/python3.12/site-packages".to_owned(),
        };
        let package = sample();
        let facts = Facts::find(&file, &package, &layout)?;
        let mut layer =
            LayerWriter::new(Vec::new(), Compression::Gzip, contract_parents).expect("a layer");
        let member = Member {
            package,
            facts: facts.clone(),
            file,
        };
        write(&[member], &layout, &mut layer)?;
        Ok(facts)
    }

    #[test]
    fn files_go_where_the_environment_has_their_kind() {
        let metadata = "Metadata-Version: 2.1\r\nName: Sample\r\nVersion: 1.0\r\nSummary: s\r\n\r\nVersion: 9\n";
        let files = "site-packages/sample.py\nsite-packages/sample-1.0.dist-info/METADATA\npython-scripts/run\nshare/b\nshare/c\n";
        let facts = installed(&[
            ("info/files", EntryType::Regular, files),
            (
                "info/has_prefix",
                EntryType::Regular,
                "/opt/placehold text share/b\n",
            ),
            ("site-packages/sample.py", EntryType::Regular, "x = 1\n"),
            (
                "site-packages/sample-1.0.dist-info/METADATA",
                EntryType::Regular,
                metadata,
            ),
            ("python-scripts/run", EntryType::Regular, "#!python\n"),
            ("share/b", EntryType::Regular, "/opt/placehold/x"),
            ("share/c", EntryType::Link, "share/b"),
            ("share/unlisted", EntryType::Regular, "nobody's"),
        ])
        .expect("a package");
        let places: Vec<_> = facts.files.values().map(|file| file.to.as_str()).collect();
        assert_eq!(
            places,
            [
                "bin/run",
                "share/b",
                "share/c",
                "lib/python3.12/site-packages/sample-1.0.dist-info/METADATA",
                "lib/python3.12/site-packages/sample.py",
            ]
        );
        let size = (PREFIX.len() + 2) as u64;
        assert_eq!(facts.files["share/b"].size_in_prefix, size);
        assert_eq!(facts.files["share/c"].size_in_prefix, size);
        let [distribution] = &facts.distributions[..] else {
            panic!("{:?}", facts.distributions);
        };
        assert_eq!(
            (
                &*distribution.name,
                &*distribution.version,
                &*distribution.metadata
            ),
            (
                "Sample",
                "1.0",
                "Metadata-Version: 2.1\nName: Sample\nVersion: 1.0\n"
            )
        );
    }

    #[test]
    fn what_is_no_package_is_refused() {
        use EntryType as Type;
        let paths = ("info/paths.json", Type::Regular, PATHS);
        installed(&[paths, ("share/a", Type::Regular, "a")]).expect("a package");
        let short = r#"{"paths": [{"_path": "share/a", "path_type": "hardlink", "prefix_placeholder": "/p", "file_mode": "binary"}], "paths_version": 1}"#;
        let none = r#"{"paths": [{"_path": "share/a", "path_type": "hardlink", "prefix_placeholder": "", "file_mode": "text"}], "paths_version": 1}"#;
        let whiteout =
            r#"{"paths": [{"_path": "share/.wh.a", "path_type": "hardlink"}], "paths_version": 1}"#;
        let below = r#"{"paths": [{"_path": "share", "path_type": "softlink"}, {"_path": "share/a", "path_type": "hardlink"}], "paths_version": 1}"#;
        let command = r#"{"noarch": {"type": "python", "entry_points": ["../../x = a:b"]}, "package_metadata_version": 1}"#;
        for entries in [
            &[][..],
            &[paths],
            &[
                ("info/paths.json", Type::Regular, "{"),
                ("share/a", Type::Regular, "a"),
            ],
            &[
                paths,
                ("share/a", Type::Regular, "a"),
                ("share/a", Type::Regular, "b"),
            ],
            &[
                paths,
                ("share/a", Type::Regular, "a"),
                ("share/../../b", Type::Regular, "b"),
            ],
            &[
                paths,
                ("share/a", Type::Regular, "a"),
                ("/etc/passwd", Type::Regular, "b"),
            ],
            &[paths, ("share/a", Type::Fifo, "")],
            &[paths, ("share/a", Type::Char, "")],
            &[paths, ("share/a", Type::Link, "../../etc/shadow")],
            &[paths, ("share/a", Type::Link, "share/a")],
            &[
                ("info/paths.json", Type::Regular, short),
                ("share/a", Type::Regular, "/p\0"),
            ],
            &[
                ("info/paths.json", Type::Regular, none),
                ("share/a", Type::Regular, "a"),
            ],
            &[
                ("info/paths.json", Type::Regular, whiteout),
                ("share/.wh.a", Type::Regular, "a"),
            ],
            &[
                ("info/paths.json", Type::Regular, below),
                ("share", Type::Symlink, "/etc"),
                ("share/a", Type::Regular, "a"),
            ],
            &[
                paths,
                ("info/link.json", Type::Regular, command),
                ("share/a", Type::Regular, "a"),
            ],
        ] {
            installed(entries).expect_err(&format!("{entries:?}"));
        }
    }
}
