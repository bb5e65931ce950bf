//! Locks: which distributions an environment holds, with their hashes. uv resolves; what is chosen is ours to check.

mod cache;
mod confine;
mod hashes;
mod links;
mod poetry;
mod provided;
mod pylock;
mod resolve;
mod said;
mod source;
mod specifier;
mod tags;
mod workshop;

pub use poetry::{normalised, read as read_poetry};
pub use provided::Provided;
pub use pylock::read as read_pylock;
pub use resolve::{LockRequest, lock, pins};
pub use said::build_error;
pub use source::{LockedSource, Origin};
pub use tags::{Libc, Target};
pub use workshop::{CHECKOUTS, Order, Workshop};

use imagespec_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// Everything an environment holds, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The wheels.
    pub wheels: Vec<LockedWheel>,
    /// What has no wheel that fits.
    pub sources: Vec<LockedSource>,
}

/// A wheel, pinned by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedWheel {
    /// Normalised name of the distribution.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of the wheel's file.
    pub filename: String,
    /// Where it is: a URL, or the path of a file.
    pub location: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Its length in bytes, where the index says.
    pub size: Option<u64>,
}
