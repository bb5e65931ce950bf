//! uv alone, and flytekit.

use std::path::{Path, PathBuf};

use crate::command::Program;
use crate::error::Error;
use crate::report;
use crate::workspace::Workspace;

/// The flytekit whose check is timed.
const FLYTEKIT: &str = "flytekit==1.16.31";
const CHECK: &str = "import sys
from flytekit import ImageSpec
spec = ImageSpec(name='check', registry=sys.argv[1], python_version='3.11', packages=['numpy==2.2.6'])
sys.exit(1 if spec.exist() else 0)
";
const TAG: &str = "import sys
from flytekit import ImageSpec
from flytekit.constants import CopyFileDetection
print(ImageSpec(name='tag', source_root=sys.argv[1], source_copy_mode=CopyFileDetection.ALL).tag)
";

/// Installs packages into a new virtual environment, with an empty cache.
pub(in crate::bench) fn pip_install(
    uv: &Path,
    place: &Path,
    packages: impl Iterator<Item = &'static str>,
    bytecode: bool,
) -> Result<(), Error> {
    let uv = |subcommand: &[&str]| {
        Program::new(uv)
            .arg("--quiet")
            .args(subcommand)
            .env("UV_CACHE_DIR", place.join("uv"))
    };
    let venv = place.join("venv");
    uv(&["venv", "--python", "3.11", "--no-python-downloads"])
        .arg(&venv)
        .run()?;
    let compile = bytecode.then_some("--compile-bytecode");
    uv(&["pip", "install", "--no-build", "--python"])
        .arg(&venv)
        .args(compile)
        .args(packages)
        .run()
}

/// A Python that has flytekit, installed below the tools of the workspace.
pub(in crate::bench) fn flytekit(workspace: &Workspace, uv: &Path) -> Result<PathBuf, Error> {
    let venv = workspace.tools().join(FLYTEKIT.replace("==", "-"));
    let python = venv.join("bin/python");
    if !venv.join("bin/pyflyte").is_file() {
        report::note(&format!("installing {FLYTEKIT}"));
        let uv = |subcommand: &[&str]| Program::new(uv).arg("--quiet").args(subcommand);
        uv(&["venv", "--clear", "--python", "3.11"])
            .arg(&venv)
            .run()?;
        uv(&["pip", "install", "--no-build", "--python"])
            .arg(&venv)
            .args([FLYTEKIT, "docker", "requests"])
            .run()?;
    }
    Ok(python)
}

/// Asks flytekit whether an image exists that does not; it asks an engine, and that the registry.
pub(in crate::bench) fn flytekit_check(
    python: &Path,
    engine: &str,
    registry: &str,
) -> Result<(), Error> {
    Program::new(python)
        .args(["-c", CHECK, registry])
        .env("DOCKER_HOST", engine)
        .silent()
        .run()
}

/// Has flytekit make the tag of an image of the files in a folder.
pub(in crate::bench) fn flytekit_tag(python: &Path, folder: &Path) -> Result<(), Error> {
    let tag = Program::new(python).args(["-c", TAG]);
    tag.arg(folder).silent().run()
}
