//! The files a spec names: walked, digested once, and opened again by whoever builds.

mod cache;
mod digest;
mod resolved;
mod walk;

pub use cache::DigestCache;
pub use digest::digest;
pub use resolved::ResolvedFiles;
pub use walk::{Found, found, walk};
