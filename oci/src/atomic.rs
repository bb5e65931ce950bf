//! Files that are either complete or absent.

use std::io::{self, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Every temporary file's name starts with this, so that nobody takes one for content.
pub(crate) const TEMPORARY: &str = ".partial-";

/// A temporary file in `folder`, which must exist, that will have `mode` as far as the umask allows.
pub(crate) fn temporary(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
        .tempfile_in(folder)
        .map_err(|error| naming(folder, &error))
}

/// Replaces the file at `path`, whose folder must exist, by one that holds `bytes`.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = temporary(folder, 0o644)?;
    file.write_all(bytes)
        .map_err(|error| naming(path, &error))?;
    persist(file, path)
}

/// Gives a temporary file of the same folder its name, durably; what stood there before is replaced.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file()
        .sync_all()
        .and_then(|()| file.persist(path).map_err(|error| error.error))
        .map_err(|error| naming(path, &error))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // A relative path's parent is empty where it means the working directory.
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    fs_err::File::open(folder)?.sync_all()
}

/// The same error with the path in its message.
pub(crate) fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{error}: `{}`", path.display()),
    )
}
