//! What a Debian archive sends.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use imagespec_core::digest::Digest;
use imagespec_debian::deb::{Deb, Kind};
use imagespec_debian::index::Index;
use imagespec_debian::keyring::Keyring;
use imagespec_debian::release::Release;
use imagespec_debian::{
    Installed, Package, Pocket, deb822 as paragraphs, depends, version as versions,
};

use crate::checksums;

fn package(deb: &[u8]) -> Package {
    Package {
        name: "x".into(),
        version: "1".into(),
        architecture: "all".into(),
        pocket: Pocket::Release,
        filename: "x.deb".into(),
        size: deb.len() as u64,
        sha256: Digest::of(deb),
        essential: false,
        priority: "optional".into(),
    }
}

/// A package file, all of which is read; what is let through stays in the root.
pub fn deb(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("a file");
    let Ok(deb) = Deb::open(file.path(), &package(bytes)) else {
        return;
    };
    // Damage is an error, and whatever comes before it is sound.
    let _ = deb.control();
    let _ = deb.data(&mut |entry, content| {
        let mut parts = entry.path.split(|byte| *byte == b'/');
        assert!(!parts.any(|part| part == b".."), "{entry:?}");
        assert!(
            !entry.path.starts_with(b"/") && !entry.path.contains(&0),
            "{entry:?}"
        );
        if let Kind::Hardlink(target) = &entry.kind {
            assert!(
                !target.starts_with(b"/") && !target.starts_with(b"../"),
                "{entry:?}"
            );
        }
        std::io::copy(&mut content.take(1 << 30), &mut std::io::sink())?;
        Ok(())
    });
}

/// A package file of an uncompressed archive with sound headers.
pub fn deb_plain(bytes: &[u8]) {
    deb(&in_place(bytes.to_vec()));
}

/// Makes the checksums right of tars that start anywhere.
fn in_place(mut deb: Vec<u8>) -> Vec<u8> {
    let found: Vec<_> = (0..deb.len().saturating_sub(512))
        .filter(|at| deb[at + 257..].starts_with(b"ustar"))
        .collect();
    for at in found {
        let header = checksums(deb[at..at + 512].to_vec());
        deb[at..at + 512].copy_from_slice(&header);
    }
    deb
}

/// What an archive says of its packages: control files, relations, `Release`, dpkg's database.
pub fn deb822(input: &[u8]) {
    let mut count = 0_usize;
    let _ = paragraphs::read(&mut &*input, |paragraph| {
        count += 1;
        for (_, value) in paragraph.fields() {
            let _ = depends::parse(value);
        }
        Ok(())
    });
    assert!(count <= input.len());
    let _ = Index::new("amd64").add(&mut &*input, Pocket::Release);
    let text = String::from_utf8_lossy(input);
    let _ = Release::parse(&text);
    let _ = Installed::read(&text);
}

/// The keys of the corpus, and the texts there that they signed.
static SIGNED: LazyLock<(Keyring, BTreeSet<String>)> = LazyLock::new(|| {
    let key = fs_err::read(crate::corpus("keyring").join("archive.asc")).expect("a key");
    let trusted = Keyring::parse(&key).expect("a keyring");
    let files = fs_err::read_dir(crate::corpus("signature")).expect("a corpus");
    let open = |path| trusted.open_clear_signed(&fs_err::read(path).ok()?).ok();
    let texts = files.flatten().filter_map(|file| open(file.path()));
    let texts = texts.collect();
    (trusted, texts)
});

/// A signed text.
pub fn signature(input: &[u8]) {
    let (trusted, sound) = &*SIGNED;
    if let Ok(text) = trusted.open_clear_signed(input) {
        assert!(sound.contains(&text), "a text that nobody signed: {text:?}");
    }
}

/// Keys.
pub fn keyring(input: &[u8]) {
    let _ = Keyring::parse(input);
}

/// Versions of packages, which have one order.
pub fn version(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let lines: Vec<_> = text.lines().take(8).collect();
    for left in &lines {
        assert_eq!(versions::compare(left, left), Ordering::Equal, "{left:?}");
        for right in &lines {
            let order = versions::compare(left, right);
            assert_eq!(
                order,
                versions::compare(right, left).reverse(),
                "{left:?} {right:?}"
            );
            for last in &lines {
                if order.is_le() && versions::compare(right, last).is_le() {
                    assert!(
                        versions::compare(left, last).is_le(),
                        "{left:?} {right:?} {last:?}"
                    );
                }
            }
        }
    }
}
