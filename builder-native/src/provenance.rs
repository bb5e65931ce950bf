//! What is in an image of ours that a later build on top of it must know.

use std::path::PathBuf;

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_debian::Package;
use imagespec_oci::store::write_atomically;
use imagespec_python::lock::Libc;
use serde::{Deserialize, Serialize};

use crate::recipe::{Interpreter, LazyLayer};

/// What the packages of an image stand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Foundation {
    pub(crate) system: System,
    /// Its Python, if there is one.
    pub(crate) python: Option<Interpreter>,
    /// Its C library, if there is one.
    pub(crate) libc: Option<Libc>,
    /// Ids of the user of images and of its group.
    pub(crate) user: (u32, u32),
    /// The Conda environment that was made here, if there is one.
    pub(crate) conda: Option<Environment>,
    /// Whether there is a Conda environment, whoever made it.
    pub(crate) has_conda: bool,
    /// Whether the virtual environment is there.
    pub(crate) venv: bool,
    /// Whether a virtual environment is to see the packages of the interpreter it stands on.
    pub(crate) system_site_packages: bool,
}

/// A Conda environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// What was asked for.
    pub(crate) specs: Vec<String>,
    /// Its packages, dependencies first.
    pub(crate) packages: Vec<imagespec_conda::Package>,
}

/// A system of packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct System {
    /// What the distribution calls itself: `debian`.
    pub(crate) distribution: Option<String>,
    /// Its release: `bookworm`.
    pub(crate) suite: Option<String>,
    /// Architecture, as Debian names it; empty where it has none.
    pub(crate) architecture: String,
    pub(crate) packages: Packages,
    /// `/bin/bash`, where there is none `/bin/sh`.
    pub(crate) shell: Option<String>,
}

/// The packages of a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Packages {
    /// Exactly these, put together here, those of `apt_packages` included.
    Ours(Vec<Package>),
    /// What dpkg's database in the base says.
    Theirs {
        /// Digest of the manifest of the base, by which its database is kept.
        base: Digest,
        /// How many layers the base has.
        layers: usize,
        /// Whether there is an `apt-get`.
        apt: bool,
    },
    /// dpkg knows of none.
    None,
}

impl Foundation {
    /// The interpreter that packages are installed for.
    pub(crate) fn interpreter(&self) -> Result<&Interpreter, BuildError> {
        self.python.as_ref().ok_or_else(|| {
            BuildError::input(
                "the base image has no Python, for `requirements`, `packages` or `python_exec`",
            )
            .field("base_image")
            .hint("name one with a `python3` on its `PATH`, or leave `base_image` out")
        })
    }

    /// The C library that packages are chosen for.
    pub(crate) fn libc(&self) -> Result<Libc, BuildError> {
        self.libc.ok_or_else(|| {
            BuildError::input(
                "the base image has neither glibc nor musl, one of which Python packages are made for",
            )
            .field("base_image")
            .hint("name a base of Debian, Ubuntu or Alpine")
        })
    }
}

impl System {
    /// The Debian release, if it is one.
    pub(crate) fn debian(&self) -> Option<&str> {
        debian(self.distribution.as_deref(), self.suite.as_deref())
    }
}

/// A release, if it is one of Debian.
pub(crate) fn debian<'s>(distribution: Option<&str>, suite: Option<&'s str>) -> Option<&'s str> {
    suite.filter(|_| distribution == Some("debian"))
}

/// An image of one platform that we made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    pub(crate) foundation: Foundation,
    /// Its layers, base first.
    pub(crate) layers: Vec<LazyLayer>,
}

impl Provenance {
    fn path(host: &Host, manifest: &Digest) -> PathBuf {
        host.cache_dir
            .join("provenance")
            .join(format!("{}.json", manifest.hex()))
    }

    /// Of the image of a manifest, if we made it here.
    pub(crate) fn read(host: &Host, manifest: &Digest) -> Option<Self> {
        serde_json::from_slice(&fs_err::read(Self::path(host, manifest)).ok()?).ok()
    }

    pub(crate) fn write(&self, host: &Host, manifest: &Digest) -> std::io::Result<()> {
        write_atomically(&Self::path(host, manifest), &serde_json::to_vec(self)?)
    }
}
