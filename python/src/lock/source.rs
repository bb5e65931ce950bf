//! What has no wheel that fits, and is built.

use imagespec_core::digest::Framed;
use serde::{Deserialize, Serialize};

use super::LockedWheel;

/// A source distribution, pinned by the digest of its archive or by its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedSource {
    /// Normalised name of the distribution.
    pub name: String,
    /// Its version, unless only building it tells.
    pub version: Option<String>,
    /// Where its files are.
    pub origin: Origin,
    /// The folder of the project among them.
    pub subdirectory: Option<String>,
}

/// Where the files of a source distribution are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// In an archive, which is located and pinned as a wheel is.
    Archive(LockedWheel),
    /// In a repository, which git can fetch.
    Git {
        /// Where it is, without a login.
        url: String,
        /// The whole id of the commit.
        commit: String,
        /// Whether the declaration names it, and not only a package.
        declared: bool,
    },
}

impl LockedSource {
    /// What a person knows it by: `docopt==0.6.2`, or the name alone.
    pub fn title(&self) -> String {
        match &self.version {
            Some(version) => format!("{}=={version}", self.name),
            None => self.name.clone(),
        }
    }

    /// Adds what its files depend on to a digest.
    pub fn frame(&self, key: &mut Framed) {
        key.text(&self.name)
            .text(self.subdirectory.as_deref().unwrap_or_default());
        match &self.origin {
            Origin::Archive(file) => key.text("archive").digest(&file.digest),
            Origin::Git { url, commit, .. } => key.text("git").text(url).text(commit),
        };
    }
}
