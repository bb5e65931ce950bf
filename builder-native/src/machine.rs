//! What of this machine appears in the sandbox.

use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use tempfile::TempDir;

/// Where the machine's authorities appear.
pub(crate) const AUTHORITIES: &str = "/run/imagespec/ca.pem";

/// A program to be mounted into the sandbox; it exists as long as the folder.
pub(crate) fn program(
    host: &Host,
    name: &str,
    content: &str,
) -> Result<(TempDir, PathBuf), BuildError> {
    let write = || -> io::Result<(TempDir, PathBuf)> {
        let folder = tempfile::Builder::new()
            .prefix(".tools-")
            .tempdir_in(&host.cache_dir)?;
        let path = folder.path().join(Path::new(name));
        fs_err::write(&path, content)?;
        #[cfg(unix)]
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok((folder, path))
    };
    write().map_err(|error| BuildError::failed("cannot prepare the commands").caused_by(&error))
}
