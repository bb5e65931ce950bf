//! Packages and lists of Conda channels.

use std::collections::HashSet;
use std::io::Write as _;

use flate2::read::MultiGzDecoder;
use imagespec_conda::layers::{Member, write};
use imagespec_conda::{CondaError, Facts, Layout, Package, index};
use imagespec_core::context::Compression;
use imagespec_oci::layer::{LayerWriter, contract_parents};

use crate::checksums;

/// Writes a package, of whose archive this is the tar, as a layer; what it lets through is of the environment and
/// belongs to its user.
pub fn install(tar: &[u8]) -> Result<(), CondaError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sample-1.0-0.tar.bz2");
    let packed = fs_err::File::create(&file)?;
    let mut packed = bzip2::write::BzEncoder::new(packed, bzip2::Compression::fast());
    packed.write_all(tar)?;
    packed.finish()?;
    let package = sample();
    let layout = Layout {
        python: "3.12".to_owned(),
        site_packages: "lib/python3.12/site-packages".to_owned(),
    };
    let facts = Facts::find(&file, &package, &layout)?;
    let mut layer = LayerWriter::new(Vec::new(), Compression::Gzip, contract_parents)?;
    let member = Member {
        package,
        facts,
        file,
    };
    write(&[member], &layout, &mut layer)?;
    let (bytes, _) = layer.finish()?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
    let mut paths = HashSet::new();
    for entry in archive.entries().expect("a sound layer") {
        let entry = entry.expect("a sound layer");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let inside = path.starts_with("opt/micromamba/");
        assert!(inside || path == "opt/", "{path}");
        let mut parts = path.split('/');
        assert!(
            !parts.any(|part| part == ".." || part.starts_with(".wh.")),
            "{path}"
        );
        let owner = entry.header().uid().expect("an owner");
        assert!(owner == 1000 || path == "opt/", "{path}: {owner}");
        assert!(paths.insert(path.clone()), "twice: {path}");
    }
    Ok(())
}

/// The tar of a package, with sound checksums.
pub fn package(input: &[u8]) {
    let _ = install(&checksums(input.to_vec()));
}

/// A list of packages.
pub fn list(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("repodata.json");
    fs_err::write(&list, input).expect("a file");
    let _ = index::parse_list(&list, &folder.path().join("records"));
}

/// A shard, or a list of them.
pub fn shard(input: &[u8]) {
    let _ = index::parse_shard(input);
    let _ = index::parse_shards(input);
}

fn sample() -> Package {
    let digest = "0".repeat(64);
    serde_json::from_value(serde_json::json!({
        "record": {
            "name": "sample", "version": "1.0", "build": "0", "build_number": 0, "subdir": "noarch",
            "noarch": "python", "fn": "sample-1.0-0.tar.bz2", "url": "https://conda.test/sample-1.0-0.tar.bz2",
            "sha256": digest, "depends": [],
        },
        "digest": format!("sha256:{digest}"),
    }))
    .expect("a package")
}
