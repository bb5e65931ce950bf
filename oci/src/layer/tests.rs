use std::io::{Read as _, Write as _};

use flate2::read::MultiGzDecoder;
use flate2::write::DeflateEncoder;

use super::*;
use imagespec_core::context::Compression;
use imagespec_core::digest::Digest;

fn writer(compression: Compression) -> LayerWriter<Vec<u8>> {
    LayerWriter::new(Vec::new(), compression, contract_parents).expect("a writer")
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).expect("deflate");
    encoder.finish().expect("deflate")
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

fn add(
    writer: &mut LayerWriter<Vec<u8>>,
    path: &str,
    content: &[u8],
    size: u64,
) -> Result<(), LayerError> {
    let data = deflate(content);
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let file = Deflated {
        size,
        crc32: crc.sum(),
        compressed_size: data.len() as u64,
        digest: None,
        pass: true,
        data: &mut data.as_slice(),
    };
    writer.deflated(path.as_bytes(), &Metadata::new(0o644, 1000), file)
}

#[test]
fn every_compression_holds_the_same_tar() {
    let content = noise(300_000);
    let diff_ids = [
        Compression::Gzip,
        Compression::GzipSingle,
        Compression::Zstd,
    ]
    .map(|compression| {
        let mut layer = writer(compression);
        add(&mut layer, "opt/venv/large", &content, 300_000).expect("a large file");
        add(&mut layer, "opt/venv/small", b"small", 5).expect("a small file");
        layer
            .file(b"root/plain", &Metadata::new(0o755, 0), 3, &mut &b"abc"[..])
            .expect("a plain file");
        let (bytes, info) = layer.finish().expect("a layer");
        assert_eq!(info.digest, Digest::of(&bytes));
        assert_eq!(info.size, bytes.len() as u64);
        let mut tar = Vec::new();
        match compression {
            Compression::Zstd => tar = zstd::decode_all(bytes.as_slice()).expect("zstd"),
            _ => assert!(
                MultiGzDecoder::new(bytes.as_slice())
                    .read_to_end(&mut tar)
                    .is_ok()
            ),
        }
        assert_eq!(info.diff_id, Digest::of(&tar));
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("a path");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("content");
            found.push((path, entry.header().uid().expect("a uid"), bytes.len()));
        }
        let expected = [
            ("opt/", 0, 0),
            ("opt/venv/", 1000, 0),
            ("opt/venv/large", 1000, 300_000),
            ("opt/venv/small", 1000, 5),
            ("root/", 1000, 0),
            ("root/plain", 0, 3),
        ];
        assert_eq!(
            found,
            expected.map(|(path, uid, size)| (path.to_owned(), uid, size))
        );
        info.diff_id
    });
    assert!(diff_ids.iter().all(|diff_id| *diff_id == diff_ids[0]));
}

#[test]
fn a_file_that_lies_about_its_size_is_refused() {
    for (declared, problem) in [(299_999, "more"), (300_001, "less"), (0, "more")] {
        let error = add(
            &mut writer(Compression::Gzip),
            "x",
            &noise(300_000),
            declared,
        )
        .expect_err("a lie");
        assert!(error.to_string().contains(problem), "{error}");
    }
    let mut layer = writer(Compression::Gzip);
    assert!(
        layer
            .file(b"a", &Metadata::new(0o644, 0), 4, &mut &b"abc"[..])
            .is_err()
    );
    let mut layer = writer(Compression::Gzip);
    assert!(
        layer
            .file(b"a", &Metadata::new(0o644, 0), 2, &mut &b"abc"[..])
            .is_err()
    );
}

#[test]
fn a_stream_with_anything_behind_its_end_is_refused() {
    let content = noise(100_000);
    let mut data = deflate(&content);
    data.extend(b"smuggled");
    let mut crc = flate2::Crc::new();
    crc.update(&content);
    let file = Deflated {
        size: 100_000,
        crc32: crc.sum(),
        compressed_size: data.len() as u64,
        digest: None,
        pass: true,
        data: &mut data.as_slice(),
    };
    assert!(
        writer(Compression::Gzip)
            .deflated(b"x", &Metadata::new(0o644, 0), file)
            .is_err()
    );
    let data = deflate(&content);
    let file = Deflated {
        size: 100_000,
        crc32: 7,
        compressed_size: data.len() as u64,
        digest: None,
        pass: true,
        data: &mut data.as_slice(),
    };
    assert!(
        writer(Compression::Gzip)
            .deflated(b"x", &Metadata::new(0o644, 0), file)
            .is_err()
    );
}

#[test]
fn paths_that_leave_or_repeat_are_refused() {
    for path in [
        "",
        "/etc/passwd",
        "a/../b",
        "..",
        "a//b",
        "./a",
        "a/",
        "a\0b",
        ".wh.a",
        "a/.wh..wh..opq",
        ".wh.a/b",
    ] {
        let mut layer = writer(Compression::Gzip);
        assert!(
            layer
                .symlink(path.as_bytes(), b"x", &Metadata::new(0o777, 0))
                .is_err(),
            "{path}"
        );
    }
    let mut layer = writer(Compression::Gzip);
    layer
        .symlink(b"a", b"elsewhere", &Metadata::new(0o777, 0))
        .expect("a link");
    assert!(
        layer
            .symlink(b"a", b"elsewhere", &Metadata::new(0o777, 0))
            .is_err()
    );
    assert!(
        layer
            .file(b"a/b", &Metadata::new(0o644, 0), 0, &mut std::io::empty())
            .is_err(),
        "below a link"
    );
    assert!(
        layer
            .hardlink(b"c", b"missing", &Metadata::new(0o644, 0))
            .is_err()
    );
}

#[test]
fn long_names_and_attributes_survive() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(180));
    let mut metadata = Metadata::new(0o4755, 3_000_000);
    metadata.xattrs.insert("user.note".into(), b"\0 =".to_vec());
    let mut layer = writer(Compression::Gzip);
    layer
        .file(long.as_bytes(), &metadata, 1, &mut &b"x"[..])
        .expect("a file");
    layer
        .symlink(b"link", long.as_bytes(), &metadata)
        .expect("a link");
    let (bytes, _) = layer.finish().expect("a layer");
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
    let mut paths = Vec::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        paths.push(entry.path_bytes().into_owned());
        if entry.link_name_bytes().is_some() {
            assert_eq!(entry.link_name_bytes().as_deref(), Some(long.as_bytes()));
        } else if entry.header().entry_type().is_file() {
            let records = entry.pax_extensions().expect("records").expect("records");
            let records: Vec<_> = records.map(|record| record.expect("a record")).collect();
            let note = records
                .iter()
                .find(|record| record.key() == Ok("SCHILY.xattr.user.note"));
            assert_eq!(note.map(tar::PaxExtension::value_bytes), Some(&b"\0 ="[..]));
        }
    }
    assert!(paths.contains(&long.into_bytes()));
}

#[test]
fn deletions_are_markers_and_only_of_paths_that_can_be() {
    let mut layer = writer(Compression::Gzip);
    layer.whiteout(b"etc/motd").expect("a whiteout");
    layer.opaque(b"var/cache").expect("an opaque folder");
    for path in [&b".."[..], b"a/..", b"", b"/a", b".wh.a"] {
        assert!(layer.whiteout(path).is_err(), "{path:?}");
        assert!(layer.opaque(path).is_err(), "{path:?}");
    }
    let (bytes, _) = layer.finish().expect("a layer");
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
    let paths: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry").path_bytes().into_owned())
        .collect();
    let expected: [&[u8]; 5] = [
        b"etc/",
        b"etc/.wh.motd",
        b"var/",
        b"var/cache/",
        b"var/cache/.wh..wh..opq",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn contents_of_every_length_around_a_buffer_pass() {
    for length in [0, 1, 511, 512, 513, 65_535, 65_536, 65_537, 131_072] {
        for content in [noise(length), vec![7; length]] {
            let mut layer = writer(Compression::Gzip);
            add(&mut layer, "x", &content, length as u64).expect("a file");
            let (bytes, info) = layer.finish().expect("a layer");
            let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
            let mut entries = archive.entries().expect("entries");
            let mut entry = entries.next().expect("an entry").expect("an entry");
            let mut read = Vec::new();
            entry.read_to_end(&mut read).expect("content");
            assert!(read == content, "{length}");
            assert_eq!(info.uncompressed_size % 512, 0);
        }
    }
}

/// Gives what it holds in pieces of some length, as a pipe does.
struct Pieces<'a>(&'a [u8], usize);

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(self.1);
        (&mut self.0).take(most as u64).read(buffer)
    }
}

#[test]
fn a_layer_does_not_depend_on_the_pieces_its_content_comes_in() {
    let text: Vec<u8> = noise(400_000).iter().map(|byte| byte % 7).collect();
    let layer = |piece| {
        let mut writer = writer(Compression::Gzip);
        let metadata = Metadata::new(0o644, 0);
        writer
            .file(
                b"a",
                &metadata,
                text.len() as u64,
                &mut Pieces(&text, piece),
            )
            .expect("a file");
        writer.finish().expect("a layer").1
    };
    let whole = layer(text.len());
    for piece in [1, 999, 4096, 65_535] {
        assert_eq!(layer(piece), whole, "{piece}");
    }
}
