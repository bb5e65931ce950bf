//! Python that no package of the base has: a distribution of `CPython` that needs nothing but the C library
//! (python-build-standalone), which uv finds, downloads and verifies, in a layer of its own.

mod find;
mod layer;

pub use find::{Standalone, cached, fetch, find};
pub use layer::{HOME, RECIPE, StandaloneError, write};
