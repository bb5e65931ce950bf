//! The machine's package sources, lent to apt in an image while commands run.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_debian::Lists;
use tempfile::TempDir;

/// Where keys appear.
pub(crate) const KEYS: &str = "/run/imagespec/apt";
/// Where sources and settings appear.
const SOURCES: &str = "/etc/apt/sources.list.d/imagespec.sources";
const SETTINGS: &str = "/etc/apt/apt.conf.d/99imagespec";
/// Forbids the scripts of packages to start services: nothing runs in an image that is being made.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// A layer below all others, so that commands find its files and may do with them what they like, and nothing
/// has to be mounted in `/etc/apt`.
#[derive(Debug)]
pub(crate) struct Lent {
    folder: TempDir,
}

impl Lent {
    /// Writes the files; `authorities` is where the machine's certificates appear, if they do.
    pub(crate) fn new(
        host: &Host,
        lists: &Lists,
        authorities: Option<&str>,
    ) -> Result<Self, BuildError> {
        let write = || -> io::Result<Self> {
            let folder = tempfile::Builder::new()
                .prefix(".lent-")
                .tempdir_in(&host.cache_dir)?;
            let lent = Self { folder };
            let mut settings = lists.settings.clone();
            if let Some(path) = authorities {
                let _ = writeln!(settings, "Acquire::https::CaInfo \"{path}\";");
            }
            lent.write(SOURCES, lists.sources.as_bytes(), 0o644)?;
            lent.write(SETTINGS, settings.as_bytes(), 0o644)?;
            lent.write(POLICY, b"#!/bin/sh\nexit 101\n", 0o755)?;
            for (name, bytes) in &lists.keyrings {
                lent.write(&format!("{KEYS}/{name}"), bytes, 0o644)?;
            }
            Ok(lent)
        };
        write().map_err(|error| BuildError::failed("cannot lend package sources").caused_by(&error))
    }

    /// The folder of the layer.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What must not become part of an image, whatever a command does with it.
    pub(crate) fn excluded() -> [PathBuf; 2] {
        [SOURCES, SETTINGS].map(PathBuf::from)
    }

    /// Writes a file of the layer, whose folders all may read.
    fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let mut file = self.folder.path().to_owned();
        let below = Path::new(path.trim_start_matches('/'));
        for folder in below.parent().into_iter().flat_map(Path::iter) {
            file.push(folder);
            fs_err::create_dir_all(&file)?;
            set_mode(&file, 0o755)?;
        }
        file.push(below.file_name().unwrap_or_default());
        fs_err::write(&file, content)?;
        set_mode(&file, mode)
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}
