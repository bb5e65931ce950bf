//! Commands that write something for a person to go on with.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use imagespec_core::error::BuildError;
use imagespec_core::spec::ImageSpec;

use crate::args::Cli;
use crate::load::File;
use crate::report::{print, print_json};

const FIRST: &str = r#"# The images of this project. `imagespec build` makes them; `imagespec schema` lists all fields.

[images.hello]
packages = ["requests>=2"]
source_root = "."
source_copy_mode = "all"

[images.hello.env]
GREETING = "Hello"
"#;

const HELLO: &str = r#"import os


def say_hello(name: str) -> str:
    return f"{os.environ.get('GREETING', 'Hello')}, {name}!"


if __name__ == "__main__":
    print(say_hello("world"))
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

pub(super) fn init(folder: &Path, hello: bool) -> Result<u8, BuildError> {
    let mut files = vec![("imagespec.toml", FIRST)];
    if hello {
        files.push(("hello.py", HELLO));
    }
    // All or nothing, as far as one can tell.
    for (name, _) in &files {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok() {
            let message = format!("there is a file already: `{}`", path.display());
            return Err(BuildError::input(message).hint("edit it, or move it away"));
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        create(&path, text).map_err(|error| {
            BuildError::input(format!("cannot write the file: `{}`", path.display()))
                .caused_by(&error)
        })?;
        print(&format!("wrote {}", path.display()))?;
    }
    Ok(0)
}

/// Writes a new file, at once or not at all.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new();
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = file.tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_declares_an_image() {
        let file: toml::Table = toml::from_str(FIRST).expect("TOML");
        let image = file["images"]["hello"].clone();
        let spec: ImageSpec = image.try_into().expect("a spec");
        assert_eq!(imagespec_core::validate::validate(&spec), Ok(()));
    }
}
