//! What a builder needs beside the plan, none of which enters the plan's digest.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::builder::BuiltImage;
use crate::event::Progress;
use crate::login::IndexLogins;
use crate::plan::ContextEntry;

/// Where and how one image is built: everything that says *how*, while the plan says *what*.
#[derive(Debug)]
pub struct BuildContext<'a> {
    /// Where the image goes.
    pub output: &'a Output,
    /// What it will be called.
    pub destination: &'a Destination,
    /// The files the plan names.
    pub files: &'a dyn ContextFiles,
    /// The image the plan starts from, where that is another image built before this one, or our own base for a
    /// builder that cannot make it.
    pub base: Option<&'a BuiltImage>,
    /// Secret files for the installation of packages.
    pub secrets: &'a [SecretMount],
    /// Logins of package indexes, for whoever resolves and fetches.
    pub logins: &'a IndexLogins,
    /// How the image is built.
    pub settings: &'a BuildSettings,
    /// Tells of progress.
    pub progress: Progress<'a>,
    /// Fires when the person wants the build to stop. A builder then cleans up after itself and returns
    /// [`BuildError::interrupted`](crate::error::BuildError::interrupted).
    pub cancel: CancellationToken,
}

/// The name of an image in the making: `[registry/]name:tag`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// Registry, and the path in it: `ghcr.io/acme`. None for an image that stays here.
    pub registry: Option<String>,
    /// The same registry, as whoever runs the image calls it.
    pub pull_registry: Option<String>,
    /// Repository name.
    pub name: String,
    /// The computed tag.
    pub tag: String,
    /// Further tags for the same image.
    pub extra_tags: Vec<String>,
}

impl Destination {
    /// `[registry/]name`.
    pub fn repository(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// `[registry/]name:tag`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository(), self.tag)
    }

    /// `[registry/]name:tag` as whoever runs the image calls it.
    pub fn pull_reference(&self) -> String {
        match &self.pull_registry {
            Some(registry) => format!("{registry}/{}:{}", self.name, self.tag),
            None => self.reference(),
        }
    }
}

/// Where a finished image goes: `--output`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// To its registry.
    Push,
    /// Into the local image store.
    Store,
    /// Into the Docker engine of this machine.
    Docker,
    /// Into a folder, in OCI image layout.
    OciDir(PathBuf),
    /// Into a file, as an archive that `docker load` takes.
    Tar(PathBuf),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push => f.write_str("push"),
            Self::Store => f.write_str("store"),
            Self::Docker => f.write_str("docker"),
            Self::OciDir(path) => write!(f, "oci:{}", path.display()),
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
        }
    }
}

/// A secret that only the installation of packages may read.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// The file on this machine.
    pub source: PathBuf,
    /// Where the installation finds it.
    pub target: PathBuf,
}

impl fmt::Debug for SecretMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMount")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// How layers are compressed: `--compression`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// gzip of many members, in which a wheel's bytes stand untouched.
    #[default]
    Gzip,
    /// gzip of one member, for readers that stop after the first.
    GzipSingle,
    /// zstd.
    Zstd,
}

impl Compression {
    /// The name it has on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::GzipSingle => "gzip-single",
            Self::Zstd => "zstd",
        }
    }
}

/// How an image is built, as flags and deployments say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSettings {
    /// Build even what exists.
    pub force: bool,
    /// Ask registries again what a base image's tag means.
    pub pull: bool,
    /// Refuse what `imagespec.lock` does not pin.
    pub locked: bool,
    /// Compression of layers, where somebody asks for one: an image that exists must then have it.
    pub compression: Option<Compression>,
    /// Whether Python packages are compiled to bytecode, where somebody says so: it must then be so in an image that
    /// exists.
    pub bytecode: Option<bool>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// How many things may be done at once, at least 1.
    pub jobs: usize,
}

impl BuildSettings {
    /// How layers are compressed: gzip of many members unless somebody asks for something else.
    pub fn compression(&self) -> Compression {
        self.compression.unwrap_or_default()
    }

    /// Whether Python packages are compiled to bytecode: they are unless somebody says no.
    pub fn bytecode(&self) -> bool {
        self.bytecode.unwrap_or(true)
    }

    /// Whether the labels asked for are among those of an image.
    pub fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
    }

    /// Whether something is asked for that the plan's digest, and so the tag, does not tell: an image that exists
    /// may then be another one.
    pub fn is_particular(&self) -> bool {
        self.compression.is_some() || self.bytecode.is_some() || !self.labels.is_empty()
    }
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            force: false,
            pull: false,
            locked: false,
            compression: None,
            bytecode: None,
            labels: BTreeMap::new(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Access to the files a plan names, by their path in the build context.
pub trait ContextFiles: fmt::Debug + Send + Sync {
    /// Opens a regular file of the context. The content is that which the plan's digest was made of: a file
    /// that changed since then is an error of kind [`io::ErrorKind::InvalidData`] at the latest when its
    /// last byte is read.
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>>;

    /// The whole of a small file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Writes the files of a plan to a folder that exists and is empty, as the plan has them.
pub fn write_files(
    entries: &BTreeMap<String, ContextEntry>,
    files: &dyn ContextFiles,
    folder: &Path,
) -> io::Result<()> {
    for (path, entry) in entries {
        let to = folder.join(path);
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent)?;
        }
        match entry {
            ContextEntry::Directory => fs_err::create_dir_all(&to)?,
            ContextEntry::Symlink { target } => link(target, &to)?,
            ContextEntry::File { executable, .. } => {
                let mut file = fs_err::File::create_new(&to)?;
                io::copy(&mut files.open(path)?, &mut file)?;
                #[cfg(unix)]
                if *executable {
                    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                }
                #[cfg(not(unix))]
                let _ = executable;
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link(target: &str, to: &Path) -> io::Result<()> {
    fs_err::os::unix::fs::symlink(target, to)
}

#[cfg(not(unix))]
fn link(_: &str, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
