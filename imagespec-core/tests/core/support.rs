//! A folder of files, and specs resolved in it.

use std::path::Path;

use imagespec_core::deployment::Deployment;
use imagespec_core::error::BuildError;
use imagespec_core::resolve::{ResolveContext, Resolved, resolve};
use imagespec_core::spec::ImageSpec;

/// A new folder with files of these relative paths and contents.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, content) in files {
        write(folder.path(), path, content);
    }
    folder
}

/// Writes a file, and the folders above it.
pub(crate) fn write(folder: &Path, path: &str, content: &str) {
    let file = folder.join(path);
    fs_err::create_dir_all(file.parent().expect("a folder above")).expect("folders");
    fs_err::write(file, content).expect("a file");
}

/// What nobody has said anything about.
pub(crate) fn context<'a>(folder: &'a Path, deployment: &'a Deployment) -> ResolveContext<'a> {
    ResolveContext {
        deployment,
        folder,
        spec_folder: None,
        default_name: "app",
        base: None,
        builder_flag: None,
        builder_variable: None,
        registry: None,
        platforms: None,
        extra_tags: &[],
        tag_scheme: None,
        code: None,
    }
}

/// The meaning of a spec whose paths start at `folder`.
pub(crate) fn resolved(folder: &Path, spec: &ImageSpec) -> Result<Resolved, BuildError> {
    resolve(spec, &context(folder, &Deployment::default()))
}

/// A spec from its JSON.
pub(crate) fn spec(json: serde_json::Value) -> ImageSpec {
    serde_json::from_value(json).expect("a spec")
}
