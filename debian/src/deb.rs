//! Package files: deb(5), an ar archive of a control and a data tar. They are read as hostile input although
//! their digest was checked: bounds on everything, and no path leaves the root.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use imagespec_core::digest::Digest;
use tar::EntryType;

use crate::archive::XZ_MEMORY;
use crate::error::DebianError;
use crate::package::Package;

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// The most bytes a control tar may unpack to.
const CONTROL_LIMIT: u64 = 64 << 20;
/// The most bytes a data tar may unpack to.
const DATA_LIMIT: u64 = 32 << 30;
/// The longest name, in bytes, of those that do not fit a header: what Linux allows a path, and the NUL.
const NAME_LIMIT: u64 = 4097;
/// The largest window of a zstd stream, in bytes.
const ZSTD_WINDOW: u64 = 128 << 20;

/// A package file whose digest was checked.
#[derive(Debug)]
pub struct Deb {
    path: PathBuf,
    control: Member,
    data: Member,
}

#[derive(Debug, Clone)]
struct Member {
    compression: String,
    offset: u64,
    size: u64,
}

/// What an entry of a package is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// A folder.
    Directory,
    /// A symbolic link, and where it points.
    Symlink(Vec<u8>),
    /// A further name of a file of the package, and that file's path.
    Hardlink(Vec<u8>),
}

/// Names that are too long for the header of the entry that follows, as GNU's tar has them.
#[derive(Debug, Default)]
struct Long {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

/// An entry of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without a leading or trailing slash; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Deb {
    /// Opens the file of a package: its digest must be the package's.
    pub fn open(path: &Path, package: &Package) -> Result<Self, DebianError> {
        let mut file = fs_err::File::open(path)?;
        let (digest, _) = Digest::of_reader(&mut file)?;
        if digest != package.sha256 {
            // A damaged file in the cache must not stay there.
            fs_err::remove_file(path)?;
            return Err(refused(path, "its digest is not the archive's"));
        }
        Self::read(path)
    }

    fn read(path: &Path) -> Result<Self, DebianError> {
        let mut file = fs_err::File::open(path)?;
        let members = members(&mut file).map_err(|error| refused(path, &error.to_string()))?;
        let find = |prefix: &str| {
            members.iter().find_map(|(name, offset, size)| {
                Some(Member {
                    compression: name.strip_prefix(prefix)?.to_owned(),
                    offset: *offset,
                    size: *size,
                })
            })
        };
        if members.first().map(|(name, ..)| name.as_str()) != Some("debian-binary") {
            return Err(refused(path, "it is not a package of format 2"));
        }
        let (Some(control), Some(data)) = (find("control.tar"), find("data.tar")) else {
            return Err(refused(path, "it lacks control or data"));
        };
        Ok(Self {
            path: path.to_owned(),
            control,
            data,
        })
    }

    /// The files of the control part by name, with their permission bits.
    pub fn control(&self) -> Result<BTreeMap<String, (u32, Vec<u8>)>, DebianError> {
        let mut files = BTreeMap::new();
        self.entries(&self.control, CONTROL_LIMIT, &mut |entry, content| {
            if let Kind::File(_) = entry.kind {
                let name = String::from_utf8(entry.path)
                    .ok()
                    .filter(|name| !name.contains('/'))
                    .ok_or_else(|| refused(&self.path, "its control part has an odd file name"))?;
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                files.insert(name, (entry.mode, bytes));
            }
            Ok(())
        })?;
        Ok(files)
    }

    /// Calls `each` with every entry of the data part, in the package's order, and the content of files.
    pub fn data(
        &self,
        each: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<(), DebianError>,
    ) -> Result<(), DebianError> {
        self.entries(&self.data, DATA_LIMIT, each)
    }

    fn entries(
        &self,
        member: &Member,
        limit: u64,
        each: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<(), DebianError>,
    ) -> Result<(), DebianError> {
        let mut file = fs_err::File::open(&self.path)?;
        file.seek(SeekFrom::Start(member.offset))?;
        let raw = BufReader::with_capacity(256 << 10, file.take(member.size));
        let plain: Box<dyn Read> = match member.compression.as_str() {
            "" => Box::new(raw),
            ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            ".xz" => Box::new(lzma_rust2::XzReader::new_mem_limit(raw, true, XZ_MEMORY)),
            ".zst" => Box::new(
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(raw, ZSTD_WINDOW)
                    .map_err(|error| refused(&self.path, &error.to_string()))?,
            ),
            other => {
                return Err(refused(
                    &self.path,
                    &format!("unknown compression `{other}`"),
                ));
            }
        };
        let mut archive = tar::Archive::new(BufReader::with_capacity(64 << 10, plain.take(limit)));
        let damaged = |error: io::Error| refused(&self.path, &error.to_string());
        let mut long = Long::default();
        // Raw, because the reader would hold a long name of any length.
        for entry in archive.entries().map_err(damaged)?.raw(true) {
            let mut entry = entry.map_err(damaged)?;
            let name = match entry.header().entry_type() {
                EntryType::GNULongName => &mut long.path,
                EntryType::GNULongLink => &mut long.target,
                _ => {
                    let read = self.entry(&entry, std::mem::take(&mut long))?;
                    each(read, &mut entry)?;
                    continue;
                }
            };
            if entry.size() > NAME_LIMIT {
                return Err(refused(&self.path, "it has a name that is too long"));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(damaged)?;
            bytes.truncate(
                bytes
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(bytes.len()),
            );
            *name = Some(bytes);
        }
        Ok(())
    }

    fn entry<R: Read>(&self, entry: &tar::Entry<'_, R>, long: Long) -> Result<Entry, DebianError> {
        let damaged = |error: io::Error| refused(&self.path, &error.to_string());
        let path = long.path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = inside(&path)
            .ok_or_else(|| refused(&self.path, "it has a path that leaves the root"))?;
        let target = long.target;
        let link = || {
            target
                .clone()
                .or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned))
                .filter(|target| !target.is_empty())
                .ok_or_else(|| refused(&self.path, "it has a link without a target"))
        };
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Kind::File(entry.size()),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Link => Kind::Hardlink(
                inside(&link()?)
                    .ok_or_else(|| refused(&self.path, "it has a link out of the root"))?,
            ),
            // dpkg reads no headers of PAX either (libdpkg, tarfn.c).
            EntryType::XHeader | EntryType::XGlobalHeader => {
                return Err(refused(
                    &self.path,
                    "it has headers that dpkg does not read",
                ));
            }
            _ => return Err(refused(&self.path, "it has a device")),
        };
        if path.is_empty() && kind != Kind::Directory {
            return Err(refused(&self.path, "its root is not a folder"));
        }
        let id = |id: io::Result<u64>| {
            u32::try_from(id.map_err(damaged)?)
                .map_err(|_| refused(&self.path, "it has an owner out of range"))
        };
        Ok(Entry {
            path,
            kind,
            mode: header.mode().map_err(damaged)? & 0o7777,
            uid: id(header.uid())?,
            gid: id(header.gid())?,
        })
    }
}

fn refused(path: &Path, problem: &str) -> DebianError {
    DebianError::Package {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

/// `path` without `./` and slashes at the ends, or nothing when it is absolute or leaves the root.
fn inside(path: &[u8]) -> Option<Vec<u8>> {
    if path.starts_with(b"/") || path.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Name, offset and size of every member of an ar archive.
fn members(file: &mut (impl Read + Seek)) -> io::Result<Vec<(String, u64, u64)>> {
    let invalid = |problem: &'static str| io::Error::new(io::ErrorKind::InvalidData, problem);
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if magic != *AR_MAGIC {
        return Err(invalid("it is not an ar archive"));
    }
    let mut members = Vec::new();
    let mut at = 8;
    while at + 60 <= end && members.len() < 16 {
        let mut header = [0; 60];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range])
                .map(str::trim)
                .unwrap_or_default()
                .to_owned()
        };
        let size: u64 = text(48..58)
            .parse()
            .map_err(|_| invalid("a member has no size"))?;
        if header[58..] != *b"`\n" || size > end - at - 60 {
            return Err(invalid("a member is damaged"));
        }
        let name = text(0..16);
        members.push((name.trim_end_matches('/').to_owned(), at + 60, size));
        at += 60 + size + size % 2;
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = AR_MAGIC.to_vec();
        for (name, content) in members {
            let header = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                "100644",
                content.len()
            );
            bytes.extend(header.as_bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len() + content.len() % 2, b'\n');
        }
        bytes
    }

    fn tar_of(path: &str, kind: EntryType, link: Option<&str>) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_cksum();
        [header.as_bytes().as_slice(), &[0; 1024]].concat()
    }

    fn entries(bytes: &[u8]) -> Result<Vec<Entry>, DebianError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(file.path(), bytes).expect("written");
        let mut found = Vec::new();
        Deb::read(file.path())?.data(&mut |entry, _| {
            found.push(entry);
            Ok(())
        })?;
        Ok(found)
    }

    fn package(data: &[u8]) -> Vec<u8> {
        ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", &[0; 1024]),
            ("data.tar", data),
        ])
    }

    #[test]
    fn entries_are_read_relative_to_the_root() {
        let found =
            entries(&package(&tar_of("./usr/bin/", EntryType::Directory, None))).expect("entries");
        assert_eq!(found[0].path, b"usr/bin");
        let found = entries(&package(&tar_of(
            "./a",
            EntryType::Symlink,
            Some("../../etc"),
        )))
        .expect("entries");
        assert_eq!(found[0].kind, Kind::Symlink(b"../../etc".to_vec()));
    }

    /// A header with a size, and that many bytes of `content`, again and again.
    fn sized(kind: EntryType, content: &[u8], size: u64) -> impl Read {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        let bytes = content.to_vec();
        let filled = std::iter::repeat_n(
            bytes,
            usize::try_from(size).expect("a size") / content.len(),
        );
        let mut filled = filled.flatten();
        let content = std::iter::from_fn(move || filled.next());
        let padding = usize::try_from(size.next_multiple_of(512) - size).expect("a size");
        let all = content.chain(std::iter::repeat_n(0, padding));
        io::Cursor::new(header.as_bytes().to_vec()).chain(Bytes(all))
    }

    struct Bytes<I>(I);

    impl<I: Iterator<Item = u8>> Read for Bytes<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut count = 0;
            for (to, from) in buffer.iter_mut().zip(self.0.by_ref()) {
                *to = from;
                count += 1;
            }
            Ok(count)
        }
    }

    fn long(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut header = sized(EntryType::GNULongName, name.as_bytes(), name.len() as u64);
        header.read_to_end(&mut bytes).expect("a header");
        [bytes, tar_of("short", EntryType::Regular, None)].concat()
    }

    #[test]
    fn names_are_long_but_not_endless() {
        let name = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        let found = entries(&package(&long(&name))).expect("entries");
        assert_eq!(found[0].path, name.as_bytes());
        for kind in [EntryType::GNULongName, EntryType::GNULongLink] {
            // 8 MiB that compress to nothing.
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::copy(&mut sized(kind, b"a", 8 << 20), &mut gzip).expect("gzip");
            let data = gzip.finish().expect("gzip");
            let error = entries(&ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", &[0; 1024]),
                ("data.tar.gz", &data),
            ]));
            let error = error.expect_err("a name without end").to_string();
            assert!(error.contains("name that is too long"), "{error}");
        }
    }

    #[test]
    fn archives_that_lie_are_refused() {
        let good = package(&tar_of("x", EntryType::Regular, None));
        let member = |at: usize, text: &str| {
            let mut bytes = good.clone();
            bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
            bytes
        };
        // The first member's name, size and end of header.
        for (at, text) in [
            (8, "debian-evil   "),
            (8 + 48, "9999999999"),
            (8 + 48, "-4        "),
            (8 + 48, "4x        "),
            (8 + 58, "xx"),
        ] {
            assert!(entries(&member(at, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_packages_are_refused() {
        for data in [
            long("../../etc/passwd"),
            long("/etc/passwd"),
            tar_of("x", EntryType::XHeader, None),
            tar_of("x", EntryType::XGlobalHeader, None),
            tar_of("x", EntryType::GNUSparse, None),
            tar_of("x", EntryType::Block, None),
            tar_of("x", EntryType::Fifo, None),
            tar_of("x", EntryType::Link, None),
            tar_of("x", EntryType::Link, Some("/etc/shadow")),
            tar_of("../etc/passwd", EntryType::Regular, None),
            tar_of("/etc/passwd", EntryType::Regular, None),
            tar_of("usr/../../x", EntryType::Regular, None),
            tar_of("x", EntryType::Link, Some("../etc/shadow")),
            tar_of("x", EntryType::Symlink, None),
            tar_of("x", EntryType::Char, None),
            tar_of("./", EntryType::Regular, None),
            vec![1; 512],
        ] {
            assert!(entries(&package(&data)).is_err());
        }
        let good = package(&tar_of("x", EntryType::Regular, None));
        assert!(entries(&good).is_ok());
        for wrong in [
            &good[..100],
            b"!<arch>\n".as_slice(),
            b"PK\x03\x04".as_slice(),
            &ar(&[("debian-binary", b"2.0\n"), ("data.tar", b"")]),
            &ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", b""),
                ("data.tar.bz2", b""),
            ]),
        ] {
            assert!(entries(wrong).is_err());
        }
    }

    #[test]
    fn a_file_that_changed_is_refused_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.deb");
        fs_err::write(&path, package(&[0; 1024])).expect("written");
        let package = Package {
            name: "x".into(),
            version: "1".into(),
            architecture: "all".into(),
            pocket: crate::Pocket::Release,
            filename: "x.deb".into(),
            size: 1,
            sha256: Digest::of("other"),
            essential: false,
            priority: "optional".into(),
        };
        assert!(Deb::open(&path, &package).is_err());
        assert!(!path.exists());
    }
}
