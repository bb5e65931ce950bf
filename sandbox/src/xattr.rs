//! Extended attributes of files that are not followed when they are links.

use std::io;
use std::path::Path;

use rustix::io::Errno;

/// The names of the attributes of `path`; none where the file system has no attributes.
pub(crate) fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut buffer = Vec::new();
    loop {
        let length = match rustix::fs::llistxattr_query(path) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        buffer.resize(length, 0);
        if length == 0 {
            return Ok(Vec::new());
        }
        match rustix::fs::llistxattr(path, &mut buffer[..]) {
            Ok(length) => {
                return Ok(buffer[..length]
                    .split(|byte| *byte == 0)
                    .filter(|name| !name.is_empty())
                    .filter_map(|name| String::from_utf8(name.to_vec()).ok())
                    .collect());
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The value of one attribute of `path`, if it has it.
pub(crate) fn get(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    // The kernel's own limit of a value, so that one call always suffices.
    let mut buffer = vec![0; 65_536];
    match rustix::fs::lgetxattr(path, name, &mut buffer[..]) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
