//! What is in an image of ours that a later build on top of it must know.

use std::path::PathBuf;

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_debian::Package;
use imagespec_oci::store::write_atomically;
use serde::{Deserialize, Serialize};

/// What an image of one platform stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    /// Debian release.
    pub(crate) suite: String,
    /// Architecture, as Debian names it.
    pub(crate) architecture: String,
    /// Minor version of Python 3.
    pub(crate) python: u32,
    /// All Debian packages, those of `apt_packages` included.
    pub(crate) packages: Vec<Package>,
    /// The diff ids of the layers that the interpreter comes from.
    pub(crate) interpreter: Vec<Digest>,
    /// Whether the virtual environment is there.
    pub(crate) venv: bool,
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
