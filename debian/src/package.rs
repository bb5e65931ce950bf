//! A package as the archive's index describes it.

use imagespec_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// The part of a suite a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pocket {
    /// The release itself.
    Release,
    /// Updates between point releases.
    Updates,
    /// Security updates.
    Security,
}

impl Pocket {
    /// All of them, in the order they are looked for.
    pub const ALL: [Self; 3] = [Self::Release, Self::Updates, Self::Security];

    /// The name the pocket of a suite has in a source.
    pub fn suite(self, suite: &str) -> String {
        match self {
            Self::Release => suite.to_owned(),
            Self::Updates => format!("{suite}-updates"),
            Self::Security => format!("{suite}-security"),
        }
    }
}

/// A package file of the archive. It names no host, so that it means the same on every mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Where it comes from.
    pub pocket: Pocket,
    /// Path below the archive's root.
    pub filename: String,
    /// Bytes of the file.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Digest,
    /// `Essential: yes`.
    pub essential: bool,
    /// `required`, `important`, `standard`, `optional` or `extra`.
    pub priority: String,
}
