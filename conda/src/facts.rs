//! What a package brings, found out once and kept: what is where, and which Python distributions it has.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use imagespec_core::digest::{Digest, Framed};
use imagespec_core::host::Host;
use imagespec_oci::layer::EntryKind;
use imagespec_oci::store::write_atomically;
use rattler_conda_types::package::{
    EntryPoint, FileMode, Files, HasPrefix, LinkJson, NoArchLinks, PackageFile as _, PathsJson,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::PREFIX;
use crate::archive::{Part, is_inside, read};
use crate::error::CondaError;
use crate::prefix::Replaced;
use crate::solve::Package;

/// Version of what is found: part of the name under which it is kept.
const RECIPE: u64 = 1;
/// The largest file that says something of a package, in bytes.
const INFO: u64 = 256 << 20;
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
    /// What it names the folder it was built in, and whether it is a binary.
    pub(crate) placeholder: Option<(String, bool)>,
    /// Size and digest in the package.
    pub(crate) size: u64,
    pub(crate) digest: Option<Digest>,
    /// Size and digest in the environment.
    pub(crate) size_in_prefix: u64,
    pub(crate) digest_in_prefix: Option<Digest>,
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

/// What is said of a file, before anybody looked at it.
struct Said {
    placeholder: Option<(String, bool)>,
    digest: Option<Digest>,
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
    pub(crate) fn find(
        file: &Path,
        package: &Package,
        layout: &Layout,
    ) -> Result<Self, CondaError> {
        let name = package.file();
        let noarch = package.record.package_record.noarch.is_python();
        let (said, commands) = info(file, &name, noarch)?;
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
                placeholder: said.placeholder.clone().filter(|_| kind == Kind::File),
                size: entry.size,
                digest: said.digest,
                size_in_prefix: entry.size,
                digest_in_prefix: said.digest,
            };
            if entry.kind == EntryKind::File {
                if let Some((placeholder, binary)) = &found.placeholder {
                    if *binary && placeholder.len() < PREFIX.len() {
                        return Err(refused("it was built in a folder whose path is too short"));
                    }
                    let mut hash = Hashed(Sha256::new());
                    let mut replaced = Replaced::new(content, placeholder, PREFIX, *binary);
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

/// What the package says of its files, and the commands it has.
fn info(
    file: &Path,
    name: &str,
    noarch: bool,
) -> Result<(HashMap<String, Said>, Vec<Command>), CondaError> {
    let mut texts: HashMap<String, Vec<u8>> = HashMap::new();
    let wanted = [
        "info/paths.json",
        "info/files",
        "info/has_prefix",
        "info/link.json",
    ];
    read(file, Part::Info, &mut |path, entry, content| {
        if wanted.contains(&path) && entry.kind == EntryKind::File {
            if entry.size > INFO {
                return Err(CondaError::package(
                    name,
                    format!("a file is too large: `{path}`"),
                ));
            }
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            texts.insert(path.to_owned(), text);
        }
        Ok(())
    })?;
    let refused = |path: &str, error: io::Error| {
        CondaError::package(name, format!("its `{path}` cannot be read, {error}"))
    };
    let mut said = HashMap::new();
    if let Some(text) = texts.get("info/paths.json") {
        let paths =
            PathsJson::from_slice(text).map_err(|error| refused("info/paths.json", error))?;
        for entry in paths.paths {
            let placeholder = entry
                .prefix_placeholder
                .map(|said| (said.placeholder, said.file_mode == FileMode::Binary));
            let digest = entry.sha256.map(|hash| Digest::from_bytes(hash.into()));
            said.insert(
                text_of(&entry.relative_path),
                Said {
                    placeholder,
                    digest,
                },
            );
        }
    } else {
        let text = |path: &str| {
            let bytes = texts.get(path).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let files = Files::from_str(&text("info/files"));
        for path in files.map_err(|error| refused("info/files", error))?.files {
            said.insert(
                text_of(&path),
                Said {
                    placeholder: None,
                    digest: None,
                },
            );
        }
        let prefixes = HasPrefix::from_str(&text("info/has_prefix"));
        for entry in prefixes
            .map_err(|error| refused("info/has_prefix", error))?
            .files
        {
            if let Some(said) = said.get_mut(&text_of(&entry.relative_path)) {
                let is_binary = entry.file_mode == FileMode::Binary;
                said.placeholder = Some((entry.prefix.into_owned(), is_binary));
            }
        }
    }
    for said in said.values() {
        if said
            .placeholder
            .as_ref()
            .is_some_and(|(text, _)| text.is_empty())
        {
            return Err(CondaError::package(
                name,
                "it was built in a folder without a path",
            ));
        }
    }
    let mut commands = Vec::new();
    if let Some(text) = texts.get("info/link.json").filter(|_| noarch) {
        let link = LinkJson::from_slice(text).map_err(|error| refused("info/link.json", error))?;
        if let NoArchLinks::Python(python) = link.noarch {
            commands.extend(python.entry_points.into_iter().map(command));
        }
    }
    if let Some(wrong) = commands.iter().find(|command| !is_command(&command.name)) {
        let problem = format!("it has a command of no usable name: `{}`", wrong.name);
        return Err(CondaError::package(name, problem));
    }
    Ok((said, commands))
}

fn command(entry: EntryPoint) -> Command {
    Command {
        name: entry.command,
        module: entry.module,
        function: entry.function,
    }
}

fn is_command(name: &str) -> bool {
    is_inside(name) && !name.contains('/') && !name.chars().any(char::is_control)
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
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
    let lines = header
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    Some(Distribution {
        name: field("Name:")?,
        version: field("Version:")?,
        metadata: lines.map(|line| format!("{line}\n")).collect(),
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
