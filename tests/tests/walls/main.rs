//! The walls between the rooms, kept by looking at the dependency graph and at the sources.

mod graph;
mod hosts;
mod sources;

use std::path::{Path, PathBuf};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the testkit is a folder of the workspace")
        .to_owned()
}
