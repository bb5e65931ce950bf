//! Files of packages, both formats: `.conda`, a zip archive of two tar archives, and `.tar.bz2`. Nothing of them is
//! trusted.

use std::io::{BufReader, Read};
use std::path::Path;

use bzip2::bufread::MultiBzDecoder;
use imagespec_oci::layer::{LayerEntry, LayerReader};
use zip::ZipArchive;

use crate::error::CondaError;

/// Entries of a package, and bytes of their contents, at most.
const ENTRIES: u64 = 2_000_000;
const BYTES: u64 = 128 << 30;
/// What is said of a package is in this folder.
const INFO: &str = "info/";

/// A part of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What is said of it.
    Info,
    /// What is installed.
    Data,
}

/// Takes an entry: its path, what it is, and its content.
pub(crate) type Take<'a> =
    dyn FnMut(&str, &LayerEntry, &mut dyn Read) -> Result<(), CondaError> + 'a;

/// Reads the entries of a part, in their order.
pub(crate) fn read(file: &Path, part: Part, take: &mut Take<'_>) -> Result<(), CondaError> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let opened = BufReader::new(fs_err::File::open(file)?);
    if !name.ends_with(".conda") {
        return entries(&name, part, MultiBzDecoder::new(opened), take);
    }
    let refused = |error: zip::result::ZipError| CondaError::package(&name, error);
    let mut archive = ZipArchive::new(opened).map_err(refused)?;
    let wanted = match part {
        Part::Info => "info-",
        Part::Data => "pkg-",
    };
    let is = |entry: &&str| entry.starts_with(wanted) && entry.ends_with(".tar.zst");
    let entry = archive.file_names().find(is).map(str::to_owned);
    let entry = entry
        .ok_or_else(|| CondaError::package(&name, format!("it has no `{wanted}*.tar.zst`")))?;
    let entry = archive.by_name(&entry).map_err(refused)?;
    entries(&name, part, zstd::Decoder::new(entry)?, take)
}

fn entries(name: &str, part: Part, tar: impl Read, take: &mut Take<'_>) -> Result<(), CondaError> {
    let mut reader = LayerReader::new(BufReader::with_capacity(256 << 10, tar));
    let (mut count, mut bytes) = (0, 0_u64);
    let unreadable = |error| CondaError::unreadable(name, &error);
    while let Some(entry) = reader.next_entry().map_err(unreadable)? {
        count += 1;
        bytes = bytes.saturating_add(entry.size);
        if count > ENTRIES || bytes > BYTES {
            return Err(CondaError::package(name, "it is larger than any package"));
        }
        let shown = String::from_utf8_lossy(&entry.path);
        let path = std::str::from_utf8(&entry.path).ok();
        let path = path.map(|path| path.trim_start_matches("./").trim_end_matches('/'));
        let Some(path) = path.filter(|path| path.is_empty() || is_inside(path)) else {
            return Err(CondaError::package(
                name,
                format!("it has a path that leads out: `{shown}`"),
            ));
        };
        if path.is_empty() || path.starts_with(INFO) != (part == Part::Info) {
            continue;
        }
        let path = path.to_owned();
        take(&path, &entry, &mut reader.content())?;
    }
    if count == 0 {
        return Err(CondaError::package(name, "it is empty"));
    }
    Ok(())
}

/// Whether a path is relative and stays where it is put.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
