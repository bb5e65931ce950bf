//! What a Debian archive sends.

use std::cmp::Ordering;
use std::io::{Read as _, Write as _};

use imagespec_core::digest::Digest;
use imagespec_debian::deb::{Deb, Kind};
use imagespec_debian::index::Index;
use imagespec_debian::keyring::Keyring;
use imagespec_debian::release::Release;
use imagespec_debian::{Installed, Package, Pocket, deb822, depends, version};
use imagespec_testkit::fuzz::{as_it_is, fuzz};

use super::{checksums, corpus};

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

/// Reads all of a package file; what it lets through stays in the root.
fn deb(bytes: &[u8]) {
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

#[test]
fn packages() {
    let tokens = [
        "debian-binary",
        "data.tar",
        ".xz",
        ".zst",
        ".gz",
        "../",
        "/",
        "`\n",
        "99999999",
    ];
    fuzz(&corpus("deb"), &tokens, as_it_is, deb);
}

#[test]
fn uncompressed_packages_with_sound_headers() {
    let tokens = [
        "ustar",
        "../",
        "/etc",
        "././@LongLink",
        "L",
        "K",
        "x",
        "g",
        "7777777777",
    ];
    fuzz(&corpus("deb-plain"), &tokens, in_place, deb);
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

#[test]
fn control_files() {
    let tokens = [
        "\n\n",
        "\n ",
        ":",
        "#",
        "Package: ",
        "Version: ",
        "SHA256: ",
        "Depends: ",
        "(>= ",
        "|",
        ",",
    ];
    fuzz(&corpus("deb822"), &tokens, as_it_is, |input| {
        let mut paragraphs = 0_usize;
        let _ = deb822::read(&mut &*input, |paragraph| {
            paragraphs += 1;
            for (_, value) in paragraph.fields() {
                let _ = depends::parse(value);
            }
            Ok(())
        });
        assert!(paragraphs <= input.len());
        let _ = Index::new("amd64").add(&mut &*input, Pocket::Release);
        let text = String::from_utf8_lossy(input);
        let _ = Release::parse(&text);
        let _ = Installed::read(&text);
    });
}

#[test]
fn signatures() {
    let trusted =
        Keyring::parse(&fs_err::read(corpus("keyring").join("archive.asc")).expect("a key"));
    let trusted = trusted.expect("a keyring");
    let tokens = [
        "-----BEGIN PGP SIGNED MESSAGE-----\n",
        "-----BEGIN PGP SIGNATURE-----\n",
        "Hash: SHA512\n",
        "\n\n",
        "- ",
    ];
    let sound: Vec<String> = fs_err::read_dir(corpus("signature"))
        .expect("a corpus")
        .flatten()
        .filter_map(|file| {
            trusted
                .open_clear_signed(&fs_err::read(file.path()).ok()?)
                .ok()
        })
        .collect();
    fuzz(&corpus("signature"), &tokens, as_it_is, |input| {
        if let Ok(text) = trusted.open_clear_signed(input) {
            assert!(sound.contains(&text), "a text that nobody signed: {text:?}");
        }
    });
    fuzz(&corpus("keyring"), &tokens, as_it_is, |input| {
        let _ = Keyring::parse(input);
    });
}

#[test]
fn versions() {
    fuzz(
        &corpus("version"),
        &["~", "+", "-", ":", "0", "."],
        as_it_is,
        |input| {
            let text = String::from_utf8_lossy(input);
            let versions: Vec<_> = text.lines().take(8).collect();
            for left in &versions {
                assert_eq!(version::compare(left, left), Ordering::Equal, "{left:?}");
                for right in &versions {
                    let order = version::compare(left, right);
                    assert_eq!(
                        order,
                        version::compare(right, left).reverse(),
                        "{left:?} {right:?}"
                    );
                    for last in &versions {
                        if order.is_le() && version::compare(right, last).is_le() {
                            assert!(
                                version::compare(left, last).is_le(),
                                "{left:?} {right:?} {last:?}"
                            );
                        }
                    }
                }
            }
        },
    );
}
