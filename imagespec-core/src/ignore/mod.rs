//! Which files below a source folder are not copied: what git ignores and does not track, what
//! `.dockerignore` names, and what nobody wants in an image.

mod docker;
mod git;
mod index;
mod standard;

use std::io;
use std::path::Path;

use docker::DockerIgnore;
use git::GitIgnore;

/// The rules for one source folder, the same for its digest and for its copy.
#[derive(Debug)]
pub struct Ignore {
    git: Option<GitIgnore>,
    docker: DockerIgnore,
}

/// What the rules say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is copied, or may hold something that is.
    Keep,
    /// It is not copied; a folder is not even looked into.
    Skip,
}

impl Ignore {
    /// The rules of the files in and above `root`.
    pub fn load(root: &Path) -> io::Result<Self> {
        Ok(Self {
            git: GitIgnore::load(root)?,
            docker: DockerIgnore::load(root)?,
        })
    }

    /// Reads the rules of a folder, relative to the root, before what is in it is asked about.
    pub fn enter(&mut self, folder: &str) {
        if let Some(git) = &mut self.git {
            git.enter(folder);
        }
    }

    /// What to do with a path, relative to the root and separated by `/`.
    pub fn verdict(&self, path: &str, folder: bool) -> Verdict {
        let name = path.rsplit('/').next().unwrap_or(path);
        let git = || {
            self.git
                .as_ref()
                .is_some_and(|git| git.ignores(path, folder))
        };
        if name == ".git" || standard::ignores(path) || self.docker.ignores(path, folder) || git() {
            return Verdict::Skip;
        }
        Verdict::Keep
    }
}
