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
        let cargo = Program::new(env!("CARGO"))
            .arg(subcommand)
            .folder(&self.root);
        // What makes the next compilation faster is gigabytes that a machine which compiles once does not need.
        match std::env::var_os("CI") {
            Some(_) => cargo.env("CARGO_INCREMENTAL", "0"),
            None => cargo,
        }
    }

    /// How many GB are free where Cargo builds and where tests put what they make.
    pub(crate) fn free(&self) -> [f64; 2] {
        [self.target.clone(), std::env::temp_dir()].map(|folder| {
            let found = rustix::fs::statvfs(&folder).or_else(|_| rustix::fs::statvfs(&self.root));
            found.map_or(0.0, |found| {
                #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
                let bytes = found.f_bavail as f64 * found.f_frsize as f64;
                bytes / 1e9
            })
        })
    }
}
