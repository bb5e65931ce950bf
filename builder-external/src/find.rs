//! Programs on `PATH`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imagespec_core::host::Host;
use imagespec_core::protocol::PROGRAM;
use imagespec_core::registry::BuilderEntry;

use crate::backend::create;

/// The program of a builder's name.
pub(crate) fn program(host: &Host, name: &str) -> Option<PathBuf> {
    if !is_name(name) {
        return None;
    }
    let file = format!("{PROGRAM}{name}{}", std::env::consts::EXE_SUFFIX);
    folders(host)
        .map(|folder| folder.join(&file))
        .find(|path| is_program(path))
}

/// The entry of a builder's name, if a program of that name is there. It is not asked who it is before it is made.
pub fn entry(host: &Host, name: &str) -> Option<BuilderEntry> {
    program(host, name)?;
    Some(BuilderEntry {
        // There are as many as a person has named.
        name: String::leak(name.to_owned()),
        aliases: &[],
        summary: "a program of its own",
        fallback: None,
        base_maker: None,
        options: &[],
        create,
    })
}

/// The entries of all programs that are there, by name; the first on `PATH` counts.
pub fn all(host: &Host) -> Vec<BuilderEntry> {
    let mut names = BTreeSet::new();
    for folder in folders(host) {
        let Ok(files) = fs_err::read_dir(&folder) else {
            continue;
        };
        for file in files.filter_map(Result::ok) {
            let file = file.file_name();
            let name = file.to_str().and_then(|file| file.strip_prefix(PROGRAM));
            let name = name.map(|name| name.trim_end_matches(std::env::consts::EXE_SUFFIX));
            if let Some(name) = name {
                names.insert(name.to_owned());
            }
        }
    }
    names.iter().filter_map(|name| entry(host, name)).collect()
}

fn folders(host: &Host) -> impl Iterator<Item = PathBuf> {
    let path = host.variable("PATH").unwrap_or_default().to_owned();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    // A relative folder would be another in every folder.
    folders.into_iter().filter(|folder| folder.is_absolute())
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().all(plain)
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}
