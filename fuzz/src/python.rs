//! Wheels and locks.

use std::collections::HashSet;
use std::io::Write as _;

use flate2::read::MultiGzDecoder;
use imagespec_core::context::Compression;
use imagespec_core::platform::Platform;
use imagespec_oci::layer::{LayerWriter, contract_parents};
use imagespec_python::lock::{Libc, Target, read_poetry, read_pylock};
use imagespec_python::wheel::{Layout, Wheel, WheelError};
use tar::EntryType;

/// Writes a wheel as a layer; what it lets through is of the environment and belongs to its user.
pub fn install(bytes: &[u8]) -> Result<(), WheelError> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    let layout = Layout {
        python: "3.11".to_owned(),
    };
    let mut layer = LayerWriter::new(Vec::new(), Compression::Gzip, contract_parents)?;
    Wheel::open(file.path())?.write(&layout, &HashSet::new(), &mut layer)?;
    let (bytes, _) = layer.finish()?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
    let mut paths = HashSet::new();
    for entry in archive.entries().expect("a sound layer") {
        let entry = entry.expect("a sound layer");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let kind = entry.header().entry_type();
        assert!(
            matches!(kind, EntryType::Regular | EntryType::Directory),
            "{path}: {kind:?}"
        );
        assert!(path.starts_with("opt/venv/") || path == "opt/", "{path}");
        assert!(
            !path
                .split('/')
                .any(|part| part == ".." || part.starts_with(".wh.")),
            "{path}"
        );
        let owner = entry.header().uid().expect("an owner");
        assert!(owner == 1000 || path == "opt/", "{path}: {owner}");
        assert!(paths.insert(path.clone()), "twice: {path}");
    }
    Ok(())
}

/// A wheel.
pub fn wheel(input: &[u8]) {
    let _ = install(input);
}

/// An archive of stored entries with sound checksums, made of a text.
pub fn wheel_stored(input: &[u8]) {
    let _ = install(&resealed(input.to_vec()));
}

/// What a resolver wrote, which a build may have had its hands in; of what it pins there is a name and a digest.
pub fn pylock(input: &[u8]) {
    if let Ok(lock) = read_pylock(&String::from_utf8_lossy(input), &target()) {
        for wheel in &lock.wheels {
            assert!(!wheel.filename.contains('/'), "{wheel:?}");
        }
    }
}

/// A `poetry.lock`, and a `pyproject.toml` behind a line of `=`.
pub fn poetry(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (lock, project) = text.split_once("\n====\n").unwrap_or((&text, ""));
    let _ = read_poetry(lock, project, &target());
}

fn target() -> Target {
    Target {
        python: 11,
        platform: Platform::amd64(),
        libc: Libc::Glibc(2, 36),
    }
}

/// Makes sizes and checksums right in an archive of stored entries, the names and contents of which stand
/// between fixed marks: what is behind the archive's own checks is reached.
fn resealed(input: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(input)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for part in text.split("=== ").skip(1).take(64) {
        let (name, content) = part.split_once(" ===\n").unwrap_or((part, ""));
        // Names of the archive that the library refuses are tested without it. It finds out too late which are longer
        // than an archive can say.
        let fits = u16::try_from(name.len()).is_ok();
        if fits && zip.start_file(name, options).is_ok() {
            zip.write_all(content.as_bytes()).expect("a file");
        }
    }
    zip.finish().expect("an archive").into_inner()
}
