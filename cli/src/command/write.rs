//! Commands that write something for a person to go on with.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use imagespec_core::error::BuildError;
use imagespec_core::spec::ImageSpec;

use super::data::{print, print_json};
use crate::args::Cli;
use crate::load::File;

const FIRST: &str = r#"# The images of this project. `imagespec build` makes them; `imagespec schema` lists all fields.

[images.hello]
packages = ["requests>=2"]
source_root = "."

[images.hello.env]
GREETING = "hello"
"#;

pub(super) fn schema(spec: bool) -> Result<u8, BuildError> {
    let schema = if spec {
        schemars::schema_for!(ImageSpec)
    } else {
        schemars::schema_for!(File)
    };
    print_json(&schema)?;
    Ok(0)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, BuildError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "imagespec", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(0)
}

pub(super) fn init(folder: &Path) -> Result<u8, BuildError> {
    let path = folder.join("imagespec.toml");
    let written = fs_err::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(FIRST.as_bytes()));
    written.map_err(|error| {
        let built =
            BuildError::input(format!("cannot write `{}`", path.display())).caused_by(&error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                built.hint("there is one already; edit it instead")
            }
            _ => built,
        }
    })?;
    print(&format!("wrote {}", path.display()))?;
    Ok(0)
}
