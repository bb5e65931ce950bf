//! Layers and documents of images.

use std::io::Read as _;

use imagespec_core::digest::Digest;
use imagespec_core::platform::Platform;
use imagespec_oci::image::Document;
use imagespec_oci::reference::Reference;
use imagespec_sandbox::{Tier, remove_tree, unpack};

use crate::checksums;

/// A layer with sound headers, which is unpacked; nothing is written elsewhere.
#[cfg(target_os = "linux")]
pub fn layer(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, layer) = (folder.path().join("secret"), folder.path().join("layer"));
    fs_err::write(&secret, "secret").expect("a file");
    fs_err::create_dir(&layer).expect("a folder");
    // Headers that say more than there is are errors; what is written until then is inside.
    let _ = unpack(&*checksums(input.to_vec()), &layer, Tier::SingleId);
    let mut names: Vec<_> = fs_err::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["layer", "secret"]);
    let mut kept = String::new();
    let mut file = fs_err::File::open(&secret).expect("a file");
    file.read_to_string(&mut kept).expect("a file");
    assert_eq!(kept, "secret");
    remove_tree(&layer).expect("a removal");
}

/// A manifest or an index.
pub fn document(input: &[u8]) {
    let Ok(document) = Document::parse(input, &Digest::of(input)) else {
        return;
    };
    // Written again, it is read as the same thing.
    let text = match &document {
        Document::Manifest(manifest) => serde_json::to_vec(manifest),
        Document::Index(index) => serde_json::to_vec(index),
    };
    let text = text.expect("JSON");
    let again = Document::parse(&text, &Digest::of(&text)).expect("the document again");
    assert_eq!(again, document);
    if let Document::Index(index) = &document {
        let _ = index.select(&Platform::amd64());
    }
}

/// Names of images.
pub fn reference(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for line in text.lines() {
        if let Ok(reference) = line.parse::<Reference>() {
            let again: Reference = reference.to_string().parse().expect("what was written");
            assert_eq!(again, reference, "{line:?}");
        }
    }
}
