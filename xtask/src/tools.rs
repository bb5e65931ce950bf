//! Programs of others that tasks use, installed below Cargo's target folder where the machine has none.

use std::path::PathBuf;

use crate::command::{Program, on_path};
use crate::error::Error;
use crate::report;
use crate::workspace::Workspace;

/// A program that Cargo can install: its crate and its version. It is not optimised: what it does takes a
/// second, and compiling it a minute instead of ten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crate {
    name: &'static str,
    version: &'static str,
}

/// Checks licences, sources and duplicates of dependencies.
pub(crate) const CARGO_DENY: Crate = Crate {
    name: "cargo-deny",
    version: "0.20.2",
};

/// Builds the book.
pub(crate) const MDBOOK: Crate = Crate {
    name: "mdbook",
    version: "0.5.4",
};

impl Crate {
    /// The machine's, or one that is installed now if it was not before.
    pub(crate) fn find(self, workspace: &Workspace) -> Result<Program, Error> {
        if on_path(self.name) {
            return Ok(Program::new(self.name));
        }
        let folder = workspace
            .tools()
            .join(format!("{}-{}", self.name, self.version));
        let path = folder.join("bin").join(self.name);
        if !path.is_file() {
            report::note(&format!("installing {} {}", self.name, self.version));
            workspace
                .cargo("install")
                .args(["--quiet", "--locked", "--debug"])
                .args([self.name, "--version", self.version])
                .arg("--root")
                .arg(&folder)
                .env("CARGO_TARGET_DIR", workspace.tools().join("build"))
                .run()?;
        }
        Ok(Program::new(path))
    }
}

/// uv: the machine's, or one from the package index that pip is set up for.
pub(crate) fn uv(workspace: &Workspace) -> Result<PathBuf, Error> {
    python_tool(workspace, "uv", "0.13.9")
}

/// typos: the machine's, or one from the package index that pip is set up for.
pub(crate) fn typos(workspace: &Workspace) -> Result<Program, Error> {
    python_tool(workspace, "typos", "1.52.0").map(Program::new)
}

fn python_tool(workspace: &Workspace, name: &'static str, version: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    if let Some(found) = found.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    if !on_path("python3") {
        return Err(Error::Missing { program: name });
    }
    let folder = workspace.tools().join(format!("{name}-{version}"));
    let path = folder.join("bin").join(name);
    if !path.is_file() {
        report::note(&format!("installing {name} {version}"));
        Program::new("python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .run()?;
        Program::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
            .arg(format!("{name}=={version}"))
            .run()?;
    }
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::NotInstalled(path))
}
