//! Where code lies, and how its modules are called: as `pyflyte register` has it.

use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;

/// A file or a package, and the folder that Python finds its modules in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The folder from which modules are imported.
    pub root: PathBuf,
    /// The module that is asked for, with dots.
    pub module: String,
    /// Whether it is a folder, all of whose modules are imported.
    pub is_package: bool,
}

/// The first folder above a path that is no package.
pub fn source_root(path: &Path) -> PathBuf {
    let mut folder = path.parent().unwrap_or(path);
    while folder.join("__init__.py").exists() {
        match folder.parent() {
            Some(parent) => folder = parent,
            None => break,
        }
    }
    folder.to_path_buf()
}

impl Project {
    /// The project of a file or a folder, as a person wrote it.
    pub fn of(folder: &Path, written: &str) -> Result<Self, BuildError> {
        let unread = |error: &std::io::Error| {
            BuildError::input(format!("cannot read the code: `{written}`")).caused_by(error)
        };
        let path = folder.join(written);
        let found = path.canonicalize().map_err(|error| unread(&error))?;
        let root = source_root(&found);
        let relative = found.strip_prefix(&root).unwrap_or(&found);
        let is_package = found.is_dir();
        let parts: Vec<_> = relative
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        let parts = if is_package {
            relative
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect()
        } else {
            parts
        };
        if let Some(part) = parts.iter().find(|part| part.contains('.')) {
            let message = format!("Python imports no module with a dot in its name: `{part}`");
            return Err(BuildError::input(message).hint(format!("rename `{written}`")));
        }
        Ok(Self {
            root,
            module: parts.join("."),
            is_package,
        })
    }
}
