//! Wheels that are sound, and wheels that are made to deceive.

use std::collections::HashSet;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::MultiGzDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression as Level, Crc};
use imagespec_core::context::Compression;
use imagespec_core::digest::Digest;
use imagespec_oci::layer::{LayerWriter, contract_parents};

use super::{Layout, Wheel, WheelError};

const INFO: &str = "pkg-1.0.dist-info";

/// A lie.
type Change = fn(&mut Header);

/// What one of the two headers of an entry says.
#[derive(Clone)]
struct Header {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc32: u32,
    compressed_size: u32,
    size: u32,
    extra: Vec<u8>,
}

impl Header {
    fn fields(&self, comment_length: bool) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0; 4]);
        for number in [self.crc32, self.compressed_size, self.size] {
            out.extend(number.to_le_bytes());
        }
        for length in [self.name.len(), self.extra.len()] {
            out.extend(u16::try_from(length).expect("a length").to_le_bytes());
        }
        if comment_length {
            out.extend([0; 2]);
        }
        out
    }
}

#[derive(Clone)]
struct Member {
    local: Header,
    central: Header,
    data: Vec<u8>,
    descriptor: Vec<u8>,
    mode: u32,
    /// Where the local header is, if that is in the data of another member.
    offset: Option<u32>,
}

impl Member {
    fn deflated(name: &str, content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Level::new(6));
        encoder.write_all(content).expect("deflate");
        Self::new(name, content, 8, encoder.finish().expect("deflate"))
    }

    fn stored(name: &str, content: &[u8]) -> Self {
        Self::new(name, content, 0, content.to_vec())
    }

    fn new(name: &str, content: &[u8], method: u16, data: Vec<u8>) -> Self {
        let mut crc = Crc::new();
        crc.update(content);
        let header = Header {
            name: name.as_bytes().to_vec(),
            flags: 0,
            method,
            crc32: crc.sum(),
            compressed_size: u32::try_from(data.len()).expect("a size"),
            size: u32::try_from(content.len()).expect("a size"),
            extra: Vec::new(),
        };
        Self {
            local: header.clone(),
            central: header,
            data,
            descriptor: Vec::new(),
            mode: 0o100_644,
            offset: None,
        }
    }

    fn both(&mut self, change: impl Fn(&mut Header)) {
        change(&mut self.local);
        change(&mut self.central);
    }

    fn local_bytes(&self) -> Vec<u8> {
        let start = [&b"PK\x03\x04\x14\0"[..], &self.local.fields(false)].concat();
        let parts = [
            &start,
            &self.local.name,
            &self.local.extra,
            &self.data,
            &self.descriptor,
        ];
        parts.map(Vec::as_slice).concat()
    }
}

fn archive(members: &[Member]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let offset = member.offset.unwrap_or_else(|| {
            let offset = u32::try_from(out.len()).expect("an offset");
            out.extend(member.local_bytes());
            offset
        });
        directory.extend(b"PK\x01\x02\x14\x03\x14\0");
        directory.extend(member.central.fields(true));
        directory.extend([0; 4]);
        directory.extend((member.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&member.central.name);
        directory.extend(&member.central.extra);
    }
    let offset = u32::try_from(out.len()).expect("an offset");
    let size = u32::try_from(directory.len()).expect("a size");
    out.extend(directory);
    out.extend(end(members.len(), size, offset));
    out
}

fn end(count: usize, size: u32, offset: u32) -> Vec<u8> {
    let count = u16::try_from(count).expect("a count").to_le_bytes();
    let numbers = [size.to_le_bytes(), offset.to_le_bytes()].concat();
    [b"PK\x05\x06\0\0\0\0", &count[..], &count, &numbers, &[0; 2]].concat()
}

/// A sound wheel, the members of which are the given ones and what every wheel has.
fn wheel(members: &[Member], contents: &[(&str, &[u8])]) -> Vec<Member> {
    let metadata: &[u8] = b"Metadata-Version: 2.1\nName: Pkg\nVersion: 1.0\n";
    let format: &[u8] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n";
    let own = [
        (format!("{INFO}/METADATA"), metadata),
        (format!("{INFO}/WHEEL"), format),
    ];
    let mut all = members.to_vec();
    let mut record = format!("{INFO}/RECORD,,\n");
    for (name, content) in contents {
        record += &row(name, content);
    }
    for (name, content) in &own {
        record += &row(name, content);
        all.push(Member::deflated(name, content));
    }
    let name = format!("{INFO}/RECORD");
    all.push(Member::deflated(&name, record.as_bytes()));
    all
}

fn row(name: &str, content: &[u8]) -> String {
    let digest = URL_SAFE_NO_PAD.encode(Digest::of(content).as_bytes());
    format!("{name},sha256={digest},{}\n", content.len())
}

/// A wheel of one member.
fn one(member: Member) -> Vec<u8> {
    archive(&wheel(&[member], &[]))
}

/// Opens a wheel and writes it to a layer: the paths of the layer.
fn install(bytes: &[u8]) -> Result<Vec<String>, WheelError> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    let layout = Layout {
        python: "3.11".to_owned(),
    };
    let mut layer = LayerWriter::new(Vec::new(), Compression::Gzip, contract_parents)?;
    Wheel::open(file.path())?.write(&layout, &HashSet::new(), &mut layer)?;
    let (bytes, _) = layer.finish()?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
    let mut paths = Vec::new();
    for entry in archive.entries()? {
        paths.push(String::from_utf8_lossy(&entry?.path_bytes()).into_owned());
    }
    Ok(paths)
}

#[track_caller]
fn refused(bytes: &[u8], because: &str) {
    let error = install(bytes).expect_err(because);
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        text = format!("{text}: {source}");
    }
    assert!(text.contains(because), "expected `{because}`: {text}");
}

#[test]
fn a_sound_wheel_is_installed() {
    let large = b"0123456789abcdef".repeat(9000);
    let files = [
        ("pkg/__init__.py", &b"x = 1\n"[..]),
        ("pkg/large.bin", &large),
        ("pkg-1.0.data/scripts/tool", b"#!python\n"),
    ];
    let members = [
        Member::deflated(files[0].0, files[0].1),
        Member::stored(files[1].0, files[1].1),
        Member::deflated(files[2].0, files[2].1),
    ];
    let paths = install(&archive(&wheel(&members, &files))).expect("a layer");
    let site = "opt/venv/lib/python3.11/site-packages";
    for expected in [
        format!("{site}/pkg/__init__.py"),
        format!("{site}/pkg/large.bin"),
        "opt/venv/bin/tool".to_owned(),
        format!("{site}/{INFO}/RECORD"),
        format!("{site}/{INFO}/INSTALLER"),
    ] {
        assert!(paths.contains(&expected), "{expected}");
    }
}

#[test]
fn names_that_leave_the_environment_are_refused() {
    for name in [
        "../x",
        "/etc/passwd",
        "a/../b",
        "a\\b",
        "a\0b",
        "./a",
        "a//b",
        "a\nb",
        "..",
        "",
    ] {
        refused(&one(Member::stored(name, b"")), "no wheel may hold");
    }
    let mut member = Member::stored("x", b"");
    member.both(|header| header.name = vec![0xff]);
    refused(&one(member), "not UTF-8");
    for name in [".wh..wh..opq", "pkg/.wh.other"] {
        refused(&one(Member::stored(name, b"")), "cannot hold the path");
    }
    for name in [
        "pkg-1.0.data/scripts/python3.11",
        "pkg-1.0.data/data/bin/python",
        "pkg-1.0.data/data/pyvenv.cfg",
        "pkg-1.0.data/data/lib64",
    ] {
        refused(&one(Member::stored(name, b"")), "takes the place");
    }
    refused(
        &one(Member::stored("pkg-1.0.data/elsewhere/x", b"")),
        "goes nowhere",
    );
    let both = [Member::stored("a", b""), Member::stored("a/b", b"")];
    refused(&archive(&wheel(&both, &[])), "two entries of one path");
}

#[test]
fn headers_that_disagree_are_refused() {
    let changes: [(&str, Change); 6] = [
        ("name", |header| header.name = b"pkg/other.py".to_vec()),
        ("method", |header| header.method ^= 8),
        ("flags", |header| header.flags |= 8),
        ("checksum", |header| header.crc32 ^= 1),
        ("size", |header| header.size += 1),
        ("compressed size", |header| header.compressed_size -= 1),
    ];
    for (what, change) in changes {
        let mut member = Member::deflated("pkg/x.py", b"x = 1\n");
        change(&mut member.local);
        let error = install(&one(member)).expect_err(what);
        assert!(
            error.to_string().contains("local header"),
            "{what}: {error}"
        );
    }
    let mut member = Member::deflated("pkg/x.py", b"x = 1\n");
    member.local.extra = zip64(7, 8);
    member.local.size = u32::MAX;
    member.local.compressed_size = u32::MAX;
    refused(&one(member), "local header");
}

#[test]
fn sizes_of_zip64_and_of_descriptors_count() {
    let mut member = Member::deflated("pkg/x.py", b"x = 1\n");
    let (size, compressed) = (member.local.size, member.local.compressed_size);
    member.both(|header| {
        header.extra = zip64(size.into(), compressed.into());
        header.size = u32::MAX;
        header.compressed_size = u32::MAX;
    });
    install(&one(member)).expect("zip64");
    for wide in [false, true] {
        let mut member = Member::deflated("pkg/x.py", b"x = 1\n");
        member.both(|header| header.flags = 8);
        member.descriptor = [b"PK\x07\x08", &member.central.crc32.to_le_bytes()[..]].concat();
        for number in [compressed, size] {
            member.descriptor.extend(number.to_le_bytes());
            member
                .descriptor
                .extend(if wide { &[0; 4][..] } else { &[] });
        }
        (
            member.local.crc32,
            member.local.size,
            member.local.compressed_size,
        ) = (0, 0, 0);
        install(&one(member.clone())).expect("a descriptor");
        member.descriptor[8] ^= 1;
        refused(&one(member), "data descriptor");
    }
}

fn zip64(size: u64, compressed_size: u64) -> Vec<u8> {
    let numbers = [size.to_le_bytes(), compressed_size.to_le_bytes()].concat();
    [&[1, 0, 16, 0][..], &numbers].concat()
}

#[test]
fn entries_that_wheels_do_not_have_are_refused() {
    let mut encrypted = Member::stored("x", b"x");
    encrypted.both(|header| header.flags = 1);
    refused(&one(encrypted), "encrypted");
    let mut bzip2 = Member::stored("x", b"x");
    bzip2.both(|header| header.method = 12);
    refused(&one(bzip2), "compression");
    let mut link = Member::stored("x", b"/etc/passwd");
    link.mode = 0o120_777;
    refused(&one(link), "neither a file nor a folder");
    refused(&one(Member::stored("x/", b"x")), "folder with content");
    let mut other = Member::stored("x", b"x");
    other.central.extra = [&[0x75, 0x70, 6, 0][..], &[1, 0, 0, 0, 0], b"y"].concat();
    refused(&one(other), "another name");
    let twice = [Member::stored("x", b""), Member::stored("x", b"")];
    refused(&archive(&wheel(&twice, &[])), "two entries of one name");
}

#[test]
fn contents_that_are_not_what_they_say_are_refused() {
    let content = b"0123456789abcdef".repeat(9000);
    let changes: [(&str, Change); 4] = [
        ("checksum", |header| header.crc32 ^= 1),
        ("inflates to more", |header| header.size -= 1),
        ("inflates to less", |header| header.size += 1),
        ("inflates to less", |header| header.compressed_size -= 1),
    ];
    for (because, change) in changes {
        let mut member = Member::deflated("x", &content);
        member.both(change);
        refused(&one(member), because);
    }
    let mut behind = Member::deflated("x", &content);
    behind.data.extend(b"smuggled");
    behind.both(|header| header.compressed_size += 8);
    refused(&one(behind), "after the end");
    let mut stored = Member::stored("x", &content);
    stored.both(|header| header.crc32 ^= 1);
    refused(&one(stored), "not what its archive says");
    for member in [
        Member::stored("x", b"y"),
        Member::deflated("x", b"y"),
        Member::stored("pkg-1.0.data/scripts/x", b"y"),
    ] {
        let name = String::from_utf8(member.local.name.clone()).expect("a name");
        let wheel = wheel(&[member], &[(&name, b"z")]);
        refused(&archive(&wheel), "says");
    }
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let mut member = Member::deflated("x", &[0; 1000]);
    member.both(|header| header.size = u32::MAX - 1);
    refused(&one(member), "inflates to more than it may");
    let mut bytes = one(Member::stored("x", b""));
    let at = bytes.len() - 22;
    bytes[at + 8..at + 12].fill(0xfe);
    refused(&bytes, "entries where its end says");
}

#[test]
fn entries_that_share_bytes_are_refused() {
    let inner = Member::stored("inner", b"inner");
    let outer = Member::stored("outer", &inner.local_bytes());
    let offset = u32::try_from(outer.local_bytes().len() - outer.data.len()).expect("an offset");
    let inner = Member {
        offset: Some(offset),
        ..inner
    };
    refused(&archive(&wheel(&[outer, inner], &[])), "share bytes");
}

#[test]
fn archives_with_several_readings_are_refused() {
    let sound = one(Member::stored("x", b"x"));
    install(&sound).expect("a layer");
    let directory = |bytes: &[u8]| {
        let at = bytes.len() - 6;
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("an offset"))
    };
    refused(b"", "no end");
    refused(b"PK\x05\x06", "no end");
    refused(&sound[..sound.len() - 1], "no end");
    refused(&[&sound[..], b"x"].concat(), "no end");
    refused(&[b"x", &sound[..]].concat(), "not where its end says");
    let mut two = sound.clone();
    let comment = end(0, 0, directory(&sound));
    let at = two.len() - 2;
    two[at] = u8::try_from(comment.len()).expect("a length");
    two.extend(comment);
    refused(&two, "several ends");
    for length in 1..sound.len() {
        assert!(install(&sound[..length]).is_err(), "{length}");
    }
}

#[test]
fn the_zip64_end_counts_where_it_agrees() {
    let sound = one(Member::stored("x", b"x"));
    let at = sound.len() - 22;
    let number = |from: usize| {
        let bytes = sound[from..from + 4].try_into().expect("a number");
        u64::from(u32::from_le_bytes(bytes))
    };
    let count = u64::from(sound[at + 8]);
    let (size, offset) = (number(at + 12), number(at + 16));
    let with = |count: u64, place: u64| {
        let mut bytes = sound[..at].to_vec();
        bytes.extend([&b"PK\x06\x06"[..], &44_u64.to_le_bytes(), &[0; 12]].concat());
        for number in [count, count, size, offset] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(
            [
                &b"PK\x06\x07\0\0\0\0"[..],
                &place.to_le_bytes(),
                &[1, 0, 0, 0],
            ]
            .concat(),
        );
        bytes.extend(&sound[at..]);
        bytes
    };
    install(&with(count, at as u64)).expect("zip64");
    refused(&with(count + 1, at as u64), "disagree");
    refused(&with(count, at as u64 - 1), "zip64 end");
}

#[test]
fn archives_that_are_no_wheels_are_refused() {
    refused(
        &archive(&[Member::stored("x", b"x")]),
        "one dist-info folder, found 0",
    );
    let second = Member::stored("other-1.dist-info/METADATA", b"");
    refused(&one(second), "one dist-info folder, found 2");
    for (name, because) in [
        ("METADATA", "no METADATA"),
        ("WHEEL", "no WHEEL"),
        ("RECORD", "no RECORD"),
    ] {
        let mut members = wheel(&[], &[]);
        let path = format!("{INFO}/{name}");
        members.retain(|member| member.local.name != path.as_bytes());
        refused(&archive(&members), because);
    }
    let replaced = |name: &str, content: &[u8]| {
        let mut members = wheel(&[], &[]);
        let path = format!("{INFO}/{name}");
        members.retain(|member| member.local.name != path.as_bytes());
        members.push(Member::stored(&path, content));
        archive(&members)
    };
    refused(
        &replaced("WHEEL", b"Wheel-Version: 2.0\n"),
        "unknown version",
    );
    refused(
        &replaced("METADATA", b"Name: a/b\nVersion: 1\n"),
        "malformed",
    );
    refused(&replaced("METADATA", b"Name: a\n"), "no Version");
    refused(&replaced("RECORD", b"nonsense"), "row of RECORD");
    refused(
        &replaced("entry_points.txt", b"[console_scripts]\npython=a:b\n"),
        "entry point",
    );
}
