//! What a base of a registry holds, as far as an image on top of it depends on it: read from its layers once.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::PathBuf;

use imagespec_core::contract::{CONDA_PREFIX, CONDA_PROVIDED, DEFAULT_PATH, USER_HOME, WORKDIR};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::Runtime;
use imagespec_oci::images::ImageStore;
use imagespec_oci::layer::LayerEntry;
use imagespec_oci::store::write_atomically;
use imagespec_oci::tree::{File, Tree};
use imagespec_python::lock::Libc;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::assemble::environment;
use crate::conda::ENVIRONMENT;
use crate::libc;
use crate::provenance::Environment;
use crate::run::open;

/// Version of what is found: part of the name under which it is kept.
const RECIPE: u64 = 4;
/// The largest small file that is read, in bytes.
const SMALL: u64 = 1 << 20;
/// The largest package database, in bytes.
const STATUS: u64 = 64 << 20;
/// The largest record of a Conda environment, in bytes.
const RECORD: u64 = 32 << 20;
/// The largest layer, in bytes of its tar: a bound on what a small blob may unpack to.
const LAYER: u64 = 256 << 30;
/// How much of a program says what it is, in bytes.
const HEAD: u64 = 4096;
/// Files that are read whole, with the most bytes they may have.
const READ: [(&str, u64); 8] = [
    ("etc/os-release", SMALL),
    ("usr/lib/os-release", SMALL),
    ("etc/passwd", SMALL),
    ("etc/group", SMALL),
    ("etc/shadow", SMALL),
    ("etc/gshadow", SMALL),
    (DATABASE, STATUS),
    ("opt/venv/pyvenv.cfg", SMALL),
];
const DATABASE: &str = "var/lib/dpkg/status";
/// Where distributions keep the authorities they trust.
const AUTHORITIES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/cert.pem",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// What was found in a base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// `ID` of its `os-release`.
    pub(crate) distribution: Option<String>,
    /// `VERSION_CODENAME` of its `os-release`.
    pub(crate) suite: Option<String>,
    pub(crate) libc: Option<Libc>,
    /// `etc/passwd`, `etc/group`, `etc/shadow` and `etc/gshadow`, where they are.
    pub(crate) accounts: Vec<Account>,
    pub(crate) python: Option<Found>,
    /// The Conda environment, if it was made by us, here or elsewhere.
    pub(crate) conda: Option<Environment>,
    pub(crate) parts: BTreeSet<Part>,
}

/// What an image may need of its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// The virtual environment, for the Python that was found.
    Venv,
    /// A Conda environment, where that of an image is.
    Conda,
    /// The folders of the image's user.
    Folders,
    /// `/bin/bash`.
    Bash,
    /// `/bin/sh`.
    Shell,
    /// `/usr/bin/apt-get`.
    Apt,
    /// Authorities for TLS.
    Authorities,
    /// The database of dpkg, which is kept beside these facts.
    Database,
}

/// A file of users or groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Its path, without the leading slash.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A Python of a base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Its absolute path, through no link.
    pub(crate) program: String,
    /// Minor version of Python 3; `None` where only running it tells.
    pub(crate) minor: Option<u32>,
    /// Whether packages are somebody else's to install (PEP 668).
    pub(crate) managed: bool,
}

/// Which base is looked into, and what for.
#[derive(Debug)]
pub(crate) struct Inspection<'a> {
    pub(crate) host: &'a Host,
    /// Digest of its manifest.
    pub(crate) manifest: Digest,
    pub(crate) layers: &'a [Layer],
    pub(crate) runtime: &'a Runtime,
    /// The interpreter that the spec names.
    pub(crate) python: Option<&'a str>,
}

impl Inspection<'_> {
    /// Where facts and the package database are kept.
    fn path(&self) -> PathBuf {
        let mut key = Framed::new("imagespec base facts");
        key.number(RECIPE).digest(&self.manifest);
        key.option(self.python, |key, python| {
            key.text(python);
        });
        let name = format!("{}.json", key.finish().hex());
        self.host.cache_dir.join("bases").join(name)
    }

    /// What was found before.
    pub(crate) fn known(&self) -> Option<Facts> {
        serde_json::from_slice(&fs_err::read(self.path()).ok()?).ok()
    }

    pub(crate) fn keep(&self, facts: &Facts) -> io::Result<()> {
        write_atomically(&self.path(), &serde_json::to_vec(facts)?)
    }

    /// Reads all layers, whose blobs must be in the store. Blocking.
    pub(crate) fn look(&self, store: &ImageStore) -> Result<Facts, BuildError> {
        let mut tree = Tree::default();
        for layer in self.layers {
            add(&mut tree, store, layer).map_err(|error| {
                BuildError::failed(format!(
                    "cannot read a layer of the base: `{}`",
                    layer.digest
                ))
                .field("base_image")
                .caused_by(&error)
            })?;
        }
        let facts = self.facts(&tree)?;
        if let Some(file) = tree.file(DATABASE) {
            whole(file, DATABASE)?;
            let kept = database(self.host, &self.manifest);
            write_atomically(&kept, &file.content)
                .map_err(|error| crate::layers::store_error(&error))?;
        }
        Ok(facts)
    }

    fn facts(&self, tree: &Tree) -> Result<Facts, BuildError> {
        let release = match ["etc/os-release", "usr/lib/os-release"]
            .into_iter()
            .find_map(|path| tree.file(path))
        {
            Some(file) => String::from_utf8_lossy(&file.content).into_owned(),
            None => String::new(),
        };
        let python = self.find_python(tree);
        let real = |path: &str| Some(format!("/{}", text(&tree.find(path)?.0)));
        let venv = tree.file("opt/venv/pyvenv.cfg").is_some()
            && self.python.is_none()
            && real("opt/venv/bin/python").is_some_and(|program| {
                let of = |python: &Found| python.program == program;
                python.as_ref().is_some_and(of)
            });
        let program = python
            .as_ref()
            .and_then(|python| tree.file(&python.program));
        let folders = [WORKDIR, USER_HOME];
        let parts = [
            (Part::Venv, venv),
            (Part::Conda, tree.has_directory(CONDA_PREFIX)),
            (
                Part::Folders,
                folders.iter().all(|path| tree.has_directory(path)),
            ),
            (Part::Bash, tree.file("bin/bash").is_some()),
            (Part::Shell, tree.file("bin/sh").is_some()),
            (Part::Apt, tree.file("usr/bin/apt-get").is_some()),
            (
                Part::Authorities,
                AUTHORITIES.iter().any(|path| tree.find(path).is_some()),
            ),
            (Part::Database, tree.file(DATABASE).is_some()),
        ];
        Ok(Facts {
            distribution: variable(&release, "ID"),
            suite: variable(&release, "VERSION_CODENAME"),
            libc: libc::find(tree, program),
            accounts: accounts(tree)?,
            python,
            conda: tree
                .file(&format!("{CONDA_PROVIDED}/{ENVIRONMENT}"))
                .and_then(|file| serde_json::from_slice(&file.content).ok()),
            parts: parts
                .into_iter()
                .filter_map(|(part, is_there)| is_there.then_some(part))
                .collect(),
        })
    }

    /// The interpreter that the spec names, else the first on `PATH`.
    fn find_python(&self, tree: &Tree) -> Option<Found> {
        if let Some(path) = self.python {
            return found(tree, path);
        }
        let env = environment(self.runtime);
        let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let names = ["python3", "python"];
        let candidates = path
            .split(':')
            .filter(|folder| folder.starts_with('/'))
            .flat_map(|folder| names.map(|name| format!("{folder}/{name}")));
        candidates
            .into_iter()
            .find_map(|candidate| found(tree, &candidate))
    }
}

/// Where the package database of a base is kept.
pub(crate) fn database(host: &Host, manifest: &Digest) -> PathBuf {
    let name = format!("{}.status", manifest.hex());
    host.cache_dir.join("bases").join(name)
}

fn add(tree: &mut Tree, store: &ImageStore, layer: &Layer) -> io::Result<()> {
    let mut tar = Hashing {
        reader: open(store, layer)?.take(LAYER),
        hash: Sha256::new(),
    };
    tree.add_layer(&mut tar, &wanted)
        .map_err(io::Error::other)?;
    io::copy(&mut tar, &mut io::sink())?;
    let found = Digest::from_bytes(tar.hash.finalize().into());
    if found == layer.diff_id {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "its content is not that of its diff id `{}`: `{found}`",
            layer.diff_id
        ),
    ))
}

/// A reader whose bytes are digested.
struct Hashing<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// How much of a file of a base is wanted.
fn wanted(path: &[u8], entry: &LayerEntry) -> Option<u64> {
    let path = std::str::from_utf8(path).ok()?;
    if let Some((_, most)) = READ.iter().find(|(known, _)| *known == path) {
        return Some(*most);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if let Some(most) = libc::wanted(name) {
        return Some(most);
    }
    let is_program = entry.mode & 0o111 != 0;
    match name {
        "pyvenv.cfg" => Some(HEAD),
        "EXTERNALLY-MANAGED" => Some(0),
        ENVIRONMENT if is_provided(path) => Some(RECORD),
        name if is_program && name.starts_with("python") => Some(HEAD),
        _ if AUTHORITIES.contains(&path) => Some(0),
        _ => is_program.then_some(4),
    }
}

/// Whether a file is where a Conda environment of ours says what it has.
fn is_provided(path: &str) -> bool {
    let folder = path.rsplit_once('/').map(|(folder, _)| folder);
    folder == CONDA_PROVIDED.strip_prefix('/')
}

/// The Python at a path, if it is one that can be run.
fn found(tree: &Tree, path: &str) -> Option<Found> {
    let mut program = text(&tree.find(path)?.0);
    // A copy in a virtual environment is not what another one can stand on.
    if let Some(home) = home(tree, &program) {
        let name = program.rsplit('/').next()?;
        program = text(&tree.find(&format!("{home}/{name}"))?.0);
    }
    let file = tree.file(&program)?;
    if file.mode & 0o111 == 0 {
        return None;
    }
    let (folder, name) = program.rsplit_once('/')?;
    let prefix = folder.rsplit_once('/').map_or("", |(prefix, _)| prefix);
    let is_elf = file.content.starts_with(b"\x7fELF");
    let minor = is_elf.then(|| minor(tree, prefix, name)).flatten();
    let managed = minor.is_some_and(|minor| {
        ["lib", "lib64"].iter().any(|lib| {
            let marker = format!("{prefix}/{lib}/python3.{minor}/EXTERNALLY-MANAGED");
            tree.file(&marker).is_some()
        })
    });
    Some(Found {
        program: format!("/{program}"),
        minor,
        managed,
    })
}

/// The folder of the interpreter that the virtual environment of a program stands on, if it is in one.
fn home(tree: &Tree, program: &str) -> Option<String> {
    let (prefix, _) = program.rsplit_once('/')?.0.rsplit_once('/')?;
    let config = tree.file(&format!("{prefix}/pyvenv.cfg"))?;
    variable(&String::from_utf8_lossy(&config.content), "home")
}

/// The minor version by the name of a program, else by the only library beside it.
fn minor(tree: &Tree, prefix: &str, name: &str) -> Option<u32> {
    let of = |name: &str| name.strip_prefix("python3.")?.parse().ok();
    if let Some(minor) = of(name) {
        return Some(minor);
    }
    let library = format!("{prefix}/lib/");
    let library = library.trim_start_matches('/');
    let mut minors = tree.iter().filter_map(|(path, _)| {
        let name = std::str::from_utf8(path).ok()?.strip_prefix(library)?;
        of(name)
    });
    match (minors.next(), minors.next()) {
        (Some(minor), None) => Some(minor),
        _ => None,
    }
}

fn accounts(tree: &Tree) -> Result<Vec<Account>, BuildError> {
    let mut accounts = Vec::new();
    for path in ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"] {
        let Some(file) = tree.file(path) else {
            continue;
        };
        whole(file, path)?;
        let text = String::from_utf8(file.content.clone())
            .map_err(|error| refused("a file of the base is no text", path).caused_by(&error))?;
        accounts.push(Account {
            path: path.to_owned(),
            text,
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
        });
    }
    Ok(accounts)
}

fn whole(file: &File, path: &str) -> Result<(), BuildError> {
    if file.complete {
        return Ok(());
    }
    Err(refused("a file of the base is too large", path))
}

fn refused(problem: &str, path: &str) -> BuildError {
    BuildError::input(format!("{problem}: `/{path}`")).field("base_image")
}

/// A path, which the tree found by a text.
fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// A value of lines `NAME=value`, quoted or not.
fn variable(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']))
    });
    value.filter(|value| !value.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of programs (`path*`), links (`path -> target`) and files (`path`, `path=content`).
    fn layer(entries: &[&str]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            if let Some((path, target)) = entry.split_once(" -> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target).expect("a link");
                continue;
            }
            let (path, content) = match (entry.strip_suffix('*'), entry.split_once('=')) {
                (Some(program), _) => {
                    header.set_mode(0o755);
                    (program, "\x7fELF")
                }
                (None, Some((path, content))) => (path, content),
                (None, None) => (*entry, ""),
            };
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes())
                .expect("a file");
        }
        tar.into_inner().expect("a layer")
    }

    fn tree(entries: &[&str]) -> Tree {
        let mut tree = Tree::default();
        tree.add_layer(&*layer(entries), &wanted).expect("a tree");
        tree
    }

    fn look(entries: &[&str], path: &str) -> Option<(String, Option<u32>, bool)> {
        let found = found(&tree(entries), path)?;
        Some((found.program, found.minor, found.managed))
    }

    #[test]
    fn a_python_is_told_by_its_name_or_its_library() {
        let told = |program: &str, minor, managed| Some((program.to_owned(), minor, managed));
        let debian = [
            "usr/bin/python3.11*",
            "usr/bin/python3 -> python3.11",
            "bin -> usr/bin",
            "usr/lib/python3.11/EXTERNALLY-MANAGED",
            "usr/lib/python3/dist-packages/x",
        ];
        assert_eq!(
            look(&debian, "/bin/python3"),
            told("/usr/bin/python3.11", Some(11), true)
        );
        let beside = ["opt/conda/bin/python*", "opt/conda/lib/python3.12/os.py"];
        assert_eq!(
            look(&beside, "/opt/conda/bin/python"),
            told("/opt/conda/bin/python", Some(12), false)
        );
        let several = [
            "o/bin/python*",
            "o/lib/python3.12/os.py",
            "o/lib/python3.13/os.py",
        ];
        assert_eq!(
            look(&several, "/o/bin/python"),
            told("/o/bin/python", None, false)
        );
        // Not a program that a file says anything of.
        assert_eq!(look(&["usr/bin/python3.11"], "/usr/bin/python3.11"), None);
        assert_eq!(look(&["usr/bin/python3.11/x"], "/usr/bin/python3.11"), None);
    }

    #[test]
    fn a_copy_in_a_virtual_environment_stands_on_another() {
        let copy = [
            "app/bin/python3*",
            "app/pyvenv.cfg=home = /usr/local/bin\n",
            "usr/local/bin/python3 -> python3.12",
            "usr/local/bin/python3.12*",
        ];
        let expected = ("/usr/local/bin/python3.12".to_owned(), Some(12), false);
        assert_eq!(look(&copy, "/app/bin/python3"), Some(expected));
        let round = ["a/bin/python*", "a/pyvenv.cfg=home = /a/bin\n"];
        assert_eq!(
            look(&round, "/a/bin/python"),
            Some(("/a/bin/python".to_owned(), None, false))
        );
        assert_eq!(look(&copy[..2], "/app/bin/python3"), None);
    }

    #[test]
    fn layers_are_read_however_they_are_compressed_and_must_be_what_they_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ImageStore::open(folder.path());
        let tar = layer(&["etc/passwd=root:x:0:0::/:/bin/sh\n"]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &tar).expect("a stream");
        for (kind, blob) in [
            ("tar", tar.clone()),
            ("tar+gzip", gzip.finish().expect("a stream")),
            ("tar+zstd", zstd::encode_all(&*tar, 1).expect("a stream")),
        ] {
            let told = Layer {
                digest: store.blobs().put(&blob).expect("a blob"),
                diff_id: Digest::of(&tar),
                size: blob.len() as u64,
                uncompressed_size: 0,
                media_type: format!("application/vnd.oci.image.layer.v1.{kind}"),
                created_by: String::new(),
            };
            let mut tree = Tree::default();
            add(&mut tree, &store, &told).expect(kind);
            let accounts = accounts(&tree).expect("accounts");
            assert_eq!(accounts[0].text, "root:x:0:0::/:/bin/sh\n", "{kind}");
            let lies = Layer {
                diff_id: Digest::of("else"),
                ..told
            };
            let error = add(&mut Tree::default(), &store, &lies).expect_err("another layer");
            assert!(error.to_string().contains("diff id"), "{error}");
        }
    }

    #[test]
    fn releases_are_read_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_CODENAME='bookworm'\nVERSION_ID=\n";
        assert_eq!(variable(text, "ID").as_deref(), Some("debian"));
        assert_eq!(
            variable(text, "VERSION_CODENAME").as_deref(),
            Some("bookworm")
        );
        assert_eq!(variable(text, "VERSION_ID"), None);
    }
}
