//! What a package says of itself, in `info`: its files, where they were built, and commands of Python.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use imagespec_core::digest::Digest;
use imagespec_oci::layer::EntryKind;
use rattler_conda_types::package::{
    EntryPoint, FileMode, Files, HasPrefix, LinkJson, NoArchLinks, PackageFile as _, PathsJson,
};

use crate::archive::{Part, is_inside, read};
use crate::error::CondaError;
use crate::facts::{Built, Command};

/// The largest file that says something of a package, in bytes.
const INFO: u64 = 256 << 20;

/// What is said of a file, before anybody looked at it.
pub(crate) struct Said {
    pub(crate) built: Option<Built>,
    pub(crate) digest: Option<Digest>,
}

/// What the package says of its files, and the commands it has.
pub(crate) fn said_of(
    file: &Path,
    name: &str,
    noarch: bool,
) -> Result<(HashMap<String, Said>, Vec<Command>), CondaError> {
    let mut texts: HashMap<String, Vec<u8>> = HashMap::new();
    let wanted = [
        "info/paths.json",
        "info/files",
        "info/has_prefix",
        "info/link.json",
    ];
    read(file, Part::Info, &mut |path, entry, content| {
        if wanted.contains(&path) && entry.kind == EntryKind::File {
            if entry.size > INFO {
                return Err(CondaError::package(
                    name,
                    format!("a file is too large: `{path}`"),
                ));
            }
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            texts.insert(path.to_owned(), text);
        }
        Ok(())
    })?;
    let refused = |path: &str, error: io::Error| {
        CondaError::package(name, format!("its `{path}` cannot be read, {error}"))
    };
    let mut said = HashMap::new();
    if let Some(text) = texts.get("info/paths.json") {
        let paths =
            PathsJson::from_slice(text).map_err(|error| refused("info/paths.json", error))?;
        for entry in paths.paths {
            let built = entry.prefix_placeholder.map(|said| Built {
                folder: said.placeholder,
                binary: said.file_mode == FileMode::Binary,
            });
            let digest = entry.sha256.map(|hash| Digest::from_bytes(hash.into()));
            said.insert(text_of(&entry.relative_path), Said { built, digest });
        }
    } else {
        let text = |path: &str| {
            let bytes = texts.get(path).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let files = Files::from_str(&text("info/files"));
        for path in files.map_err(|error| refused("info/files", error))?.files {
            said.insert(
                text_of(&path),
                Said {
                    built: None,
                    digest: None,
                },
            );
        }
        let prefixes = HasPrefix::from_str(&text("info/has_prefix"));
        for entry in prefixes
            .map_err(|error| refused("info/has_prefix", error))?
            .files
        {
            if let Some(said) = said.get_mut(&text_of(&entry.relative_path)) {
                said.built = Some(Built {
                    folder: entry.prefix.into_owned(),
                    binary: entry.file_mode == FileMode::Binary,
                });
            }
        }
    }
    for said in said.values() {
        let built = said.built.as_ref();
        if built.is_some_and(|built| built.folder.is_empty()) {
            return Err(CondaError::package(
                name,
                "it was built in a folder without a path",
            ));
        }
    }
    let mut commands = Vec::new();
    if let Some(text) = texts.get("info/link.json").filter(|_| noarch) {
        let link = LinkJson::from_slice(text).map_err(|error| refused("info/link.json", error))?;
        if let NoArchLinks::Python(python) = link.noarch {
            commands.extend(python.entry_points.into_iter().map(command));
        }
    }
    if let Some(wrong) = commands.iter().find(|command| !is_command(&command.name)) {
        let problem = format!("it has a command of no usable name: `{}`", wrong.name);
        return Err(CondaError::package(name, problem));
    }
    Ok((said, commands))
}

fn command(entry: EntryPoint) -> Command {
    Command {
        name: entry.command,
        module: entry.module,
        function: entry.function,
    }
}

fn is_command(name: &str) -> bool {
    is_inside(name) && !name.contains('/') && !name.chars().any(char::is_control)
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
