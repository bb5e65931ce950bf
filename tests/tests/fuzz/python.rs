//! Wheels.

use std::collections::HashSet;
use std::io::Write as _;

use flate2::read::MultiGzDecoder;
use imagespec_core::context::Compression;
use imagespec_oci::layer::{LayerWriter, contract_parents};
use imagespec_python::wheel::{Layout, Wheel, WheelError};
use imagespec_testkit::fuzz::{as_it_is, fuzz};
use tar::EntryType;

use super::corpus;

/// Writes a wheel as a layer; what it lets through is of the environment and belongs to its user.
fn install(bytes: &[u8]) -> Result<(), WheelError> {
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

#[test]
fn wheels() {
    let tokens = [
        "PK\u{1}\u{2}",
        "PK\u{3}\u{4}",
        "PK\u{5}\u{6}",
        "PK\u{6}\u{6}",
        "PK\u{6}\u{7}",
        "PK\u{7}\u{8}",
        "../",
        "/",
        "\\",
        "pkg-1.0.data/scripts/",
        ".dist-info/",
        ",sha256=",
        "\n",
    ];
    for seed in fs_err::read_dir(corpus("wheel")).expect("a corpus") {
        let bytes = fs_err::read(seed.expect("a file").path()).expect("a file");
        install(&bytes).expect("a sound wheel");
    }
    fuzz(&corpus("wheel"), &tokens, as_it_is, |input| {
        let _ = install(input);
    });
}

#[test]
fn wheels_with_sound_checksums() {
    fuzz(
        &corpus("wheel-stored"),
        &[
            "../",
            "/",
            "x = y:z\n",
            "[console_scripts]\n",
            "#!python",
            "\n\n",
            ",",
        ],
        resealed,
        |input| {
            let _ = install(input);
        },
    );
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
