//! Where things are.

use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

use crate::command::Program;
use crate::error::Error;

/// The workspace that this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Its folder.
    pub(crate) root: PathBuf,
    /// Where Cargo builds.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks Cargo.
    pub(crate) fn find() -> Result<Self, Error> {
        let metadata = MetadataCommand::new()
            .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .no_deps()
            .exec()
            .map_err(Error::Metadata)?;
        Ok(Self {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
        })
    }

    /// Where tools of the tasks are installed.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// `cargo` with a subcommand, in the root.
    pub(crate) fn cargo(&self, subcommand: &str) -> Program {
        Program::new(env!("CARGO"))
            .arg(subcommand)
            .folder(&self.root)
    }
}
