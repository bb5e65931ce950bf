//! Layers that mean harm, and layers that are merely odd.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use imagespec_core::digest::Digest;
use imagespec_sandbox::{Error, Snapshots, Tier, remove_tree, unpack};

/// One entry of a tar with exactly these bytes as its name.
fn entry(tar: &mut Vec<u8>, name: &str, kind: tar::EntryType, content: &[u8], link: &str) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    if matches!(kind, Char | Block) {
        header.set_device_major(8).unwrap();
        header.set_device_minor(1).unwrap();
    }
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// An entry's name, kind, content and link.
type Wanted<'a> = (&'a str, tar::EntryType, &'a [u8], &'a str);

/// Unpacks entries.
fn unpacked(entries: &[Wanted<'_>]) -> (tempfile::TempDir, Result<(), Error>) {
    let mut tar = Vec::new();
    for (name, kind, content, link) in entries {
        entry(&mut tar, name, *kind, content, link);
    }
    tar.resize(tar.len() + 1024, 0);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("layer")).unwrap();
    let result = unpack(&tar[..], &folder.path().join("layer"), Tier::SingleId);
    (folder, result)
}

use tar::EntryType::{
    Block, Char, Directory, GNUSparse, Link, Regular, Symlink, XGlobalHeader, XHeader,
};

#[test]
fn nothing_is_written_outside() {
    let attacks: [&[Wanted<'_>]; 8] = [
        &[("../out", Regular, b"x", "")],
        &[("a/../../out", Regular, b"x", "")],
        &[
            ("link", Symlink, b"", ".."),
            ("link/out", Regular, b"x", ""),
        ],
        &[
            ("link", Symlink, b"", ".."),
            ("link/out/deep", Directory, b"", ""),
        ],
        &[("hard", Link, b"", "../secret")],
        &[
            ("link", Symlink, b"", ".."),
            ("hard", Link, b"", "link/secret"),
        ],
        &[("file", Regular, b"", ""), ("file/out", Regular, b"x", "")],
        &[
            ("link", Symlink, b"", ".."),
            ("link/.wh.secret", Regular, b"", ""),
        ],
    ];
    for attack in attacks {
        let (folder, result) = unpacked(attack);
        assert!(
            matches!(result, Err(Error::Layer { .. })),
            "{attack:?}: {result:?}"
        );
        assert!(!folder.path().join("out").exists(), "{attack:?}");
    }
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let target = outside.path().to_str().unwrap();
    let (folder, result) = unpacked(&[
        ("link", Symlink, b"", target),
        ("link", Regular, b"inside", ""),
        ("/absolute", Regular, b"inside", ""),
    ]);
    result.unwrap();
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
    let layer = folder.path().join("layer");
    assert!(
        std::fs::symlink_metadata(layer.join("link"))
            .unwrap()
            .is_file()
    );
    assert!(layer.join("absolute").exists());
}

#[test]
fn damage_and_excess_are_refused() {
    let endless = [b"30 SCHILY.xattr.user.overlay.x=".as_slice(), b"y\n"].concat();
    for (entries, reason) in [
        (
            &[("s", GNUSparse, b"".as_slice(), "")][..],
            "a layer cannot have an entry of this type",
        ),
        (
            &[("p", XHeader, b"nonsense", ""), ("f", Regular, b"", "")],
            "an attribute is damaged",
        ),
        (
            &[("p", XHeader, b"99999 a=b\n", ""), ("f", Regular, b"", "")],
            "an attribute is damaged",
        ),
        (
            &[("p", XHeader, &endless, ""), ("f", Regular, b"", "")],
            "an attribute is damaged",
        ),
        (
            &[("x/.wh...", Regular, b"", "")],
            "a deletion names nothing",
        ),
        (
            &[("d", Directory, b"", ""), ("d", Regular, b"", "")],
            "an entry replaces a folder",
        ),
        (&[("l", Symlink, b"", "")], "a link leads nowhere"),
        (
            &[("h", Link, b"", "missing")],
            "a hard link leads to nothing in its layer",
        ),
    ] {
        let (_folder, result) = unpacked(entries);
        match result {
            Err(Error::Layer { reason: found, .. }) => assert_eq!(found, reason),
            other => panic!("{entries:?}: {other:?}"),
        }
    }
}

#[test]
fn an_archive_cut_short_is_refused() {
    let mut tar = Vec::new();
    entry(&mut tar, "file", Regular, &[7; 2000], "");
    for length in [100, 512, 600, 1600, tar.len() - 1] {
        let folder = tempfile::tempdir().unwrap();
        let result = unpack(&tar[..length], folder.path(), Tier::SingleId);
        assert!(result.is_err(), "{length}");
    }
    let folder = tempfile::tempdir().unwrap();
    unpack(&tar[..], folder.path(), Tier::SingleId).unwrap();
    tar[200] ^= 1;
    assert!(unpack(&tar[..], folder.path(), Tier::SingleId).is_err());
}

/// A header that announces a gigabyte of attributes, behind which there is an endless stream.
#[test]
fn attributes_are_bounded_before_they_are_read() {
    let mut header = tar::Header::new_ustar();
    header.set_path("p").unwrap();
    header.set_entry_type(XHeader);
    header.set_size(1 << 30);
    header.set_cksum();
    let stream = io::Read::chain(&header.as_bytes()[..], io::repeat(b'a'));
    let folder = tempfile::tempdir().unwrap();
    let result = unpack(stream, folder.path(), Tier::SingleId);
    assert!(matches!(
        result,
        Err(Error::Layer {
            reason: "an entry has too many attributes",
            ..
        })
    ));
}

#[test]
fn attributes_apply_to_one_entry() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let record = |key: &str, value: &str| {
        let body = format!(" {key}={value}\n");
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        format!("{length}{body}")
    };
    let pax = [
        record("path", &long),
        record("uid", "1000"),
        record("mtime", "5.25"),
        record("SCHILY.xattr.user.note", "a\nb"),
        record("SCHILY.xattr.user.overlay.whiteout", "y"),
        record("SCHILY.xattr.trusted.overlay.opaque", "y"),
    ]
    .concat();
    let (folder, result) = unpacked(&[
        (
            "g",
            XGlobalHeader,
            record("path", "elsewhere").as_bytes(),
            "",
        ),
        ("p", XHeader, pax.as_bytes(), ""),
        ("short", Regular, b"content", ""),
        ("next", Regular, b"", ""),
        ("dev", Char, b"", ""),
        ("disk", Block, b"", ""),
    ]);
    result.unwrap();
    let layer = folder.path().join("layer");
    let file = layer.join(&long);
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
    assert_eq!(std::fs::metadata(&file).unwrap().mtime(), 5);
    assert_eq!(
        attribute(&file, "user.imagespec.owner").as_deref(),
        Some(&b"1000:0"[..])
    );
    assert_eq!(attribute(&file, "user.note").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(attribute(&file, "user.overlay.whiteout"), None);
    assert_eq!(attribute(&layer.join("next"), "user.imagespec.owner"), None);
    assert!(!layer.join("dev").exists() && !layer.join("disk").exists());
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn deletions_become_what_an_overlay_understands() {
    let (folder, result) = unpacked(&[
        ("etc/.wh.gone", Regular, b"", ""),
        ("both/.wh.before", Regular, b"", ""),
        ("both/before", Directory, b"", ""),
        ("after/dir", Directory, b"", ""),
        ("after/.wh.dir", Regular, b"", ""),
        ("after/file", Regular, b"kept", ""),
        ("after/.wh.file", Regular, b"", ""),
        ("all/.wh..wh..opq", Regular, b"", ""),
    ]);
    result.unwrap();
    let layer = folder.path().join("layer");
    let gone = std::fs::symlink_metadata(layer.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |path: &str| attribute(&layer.join(path), "user.overlay.opaque").is_some();
    assert!(opaque("both/before") && opaque("after/dir") && opaque("all"));
    assert!(!opaque("etc") && !opaque("both"));
    assert_eq!(std::fs::read(layer.join("after/file")).unwrap(), b"kept");
    assert!(!layer.join("all/.wh..wh..opq").exists());
}

#[test]
fn a_snapshot_is_unpacked_once_and_only_if_it_is_the_right_one() {
    let mut tar = Vec::new();
    entry(&mut tar, "file", Regular, b"content", "");
    tar.resize(tar.len() + 10_240, 0);
    let right = Digest::of(&tar);
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(folder.path(), Tier::SingleId).unwrap();
    let wrong = snapshots.ensure(&Digest::of(b"other"), || Ok(&tar[..]));
    assert!(matches!(wrong, Err(Error::Digest { .. })));
    let opened = std::sync::atomic::AtomicUsize::new(0);
    let paths: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    snapshots.ensure(&right, || {
                        opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        Ok(&tar[..])
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .collect()
    });
    assert_eq!(opened.into_inner(), 1);
    assert!(paths.iter().all(|path| path.join("file").exists()));
    // A layer may deny its owner its own folders.
    std::fs::set_permissions(&paths[0], PermissionsExt::from_mode(0o000)).unwrap();
    snapshots.remove(&right).unwrap();
    assert!(!paths[0].exists());
    snapshots.remove(&right).unwrap();
    remove_tree(folder.path()).unwrap();
}
