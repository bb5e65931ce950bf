//! Where source distributions may be built: somebody else's business, who has a sandbox.

use std::fmt;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use imagespec_core::error::BuildError;

use crate::git::Checkout;
use crate::index::Settings;

/// Where checkouts appear in a workshop, each as a folder of its own that its id names.
pub const CHECKOUTS: &str = "/tmp/imagespec/git";

/// A resolution that takes building.
#[derive(Debug)]
pub struct Order<'a> {
    /// What uv is told. Paths are relative to `folder`; the lock is what it prints.
    pub arguments: Vec<String>,
    /// What it knows of indexes.
    pub settings: &'a Settings,
    /// Files of the person.
    pub folder: &'a Path,
    /// Further files of the person, which have to be there under the same paths.
    pub files: &'a [PathBuf],
    /// Repositories whose files have to be there.
    pub checkouts: &'a [Checkout],
    /// The requirement that takes building; `None` where secrets alone are the reason.
    pub requirement: Option<String>,
    /// The field that has it.
    pub field: &'static str,
}

/// Runs uv where it may build.
pub trait Workshop: fmt::Debug + Sync {
    /// What uv prints, or what it says where it fails.
    fn compile<'a>(
        &'a self,
        order: Order<'a>,
    ) -> BoxFuture<'a, Result<Result<String, String>, BuildError>>;
}
