//! The entries of a tar archive: ustar, with GNU's long names and PAX records (POSIX.1-2001, pax Interchange
//! Format), each of bounded size.

use std::io::{self, Read, Take};

use tar::{EntryType, Header};

use super::refuse;
use crate::error::Error;

/// Size of a block, in bytes.
const BLOCK: u64 = 512;
/// The most that may precede one entry, in bytes: long names and PAX records together.
const EXTENSIONS: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Fifo,
    /// Major and minor number.
    Character(u32, u32),
    /// Major and minor number.
    Block(u32, u32),
}

/// One entry, as the archive has it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Where a link leads.
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// What precedes an entry and says what its header cannot.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// A tar archive that is read from start to end.
pub(super) struct Archive<R> {
    reader: Take<R>,
    /// Bytes between the current entry's content and the next header.
    padding: u64,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: reader.take(0),
            padding: 0,
        }
    }

    /// The content of the entry that was read last.
    pub(super) fn content(&mut self) -> impl Read {
        &mut self.reader
    }

    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        let mut budget = EXTENSIONS;
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let name = header.path_bytes().into_owned();
            let size = header
                .entry_size()
                .map_err(|_| refuse("an entry has no size", &name))?;
            let kind = header.entry_type();
            let extends = kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions();
            if !extends {
                self.advance(extensions.size.unwrap_or(size), &name)?;
                return entry(&header, extensions).map(Some);
            }
            budget = budget
                .checked_sub(size)
                .ok_or_else(|| refuse("an entry has too many attributes", &name))?;
            self.advance(size, &name)?;
            let mut content = Vec::new();
            self.reader.read_to_end(&mut content)?;
            if content.len() as u64 != size {
                return Err(refuse("the archive is cut short", &name));
            }
            match kind {
                EntryType::GNULongName => extensions.path = Some(until_nul(content)),
                EntryType::GNULongLink => extensions.target = Some(until_nul(content)),
                EntryType::XHeader => extensions.read(&content, &name)?,
                // Global ones are comments in practice, and could change every later entry.
                _ => {}
            }
        }
    }

    /// Makes the next `size` bytes the content.
    fn advance(&mut self, size: u64, name: &[u8]) -> Result<(), Error> {
        let padded = size
            .checked_next_multiple_of(BLOCK)
            .ok_or_else(|| refuse("an entry is too large", name))?;
        self.padding = padded - size;
        self.reader.set_limit(size);
        Ok(())
    }

    /// Reads over what is left of the content.
    fn skip_content(&mut self) -> Result<(), Error> {
        let left = self.reader.limit();
        let skipped = io::copy(&mut self.reader, &mut io::sink())?;
        self.reader.set_limit(self.padding);
        let padding = io::copy(&mut self.reader, &mut io::sink())?;
        if skipped != left || padding != self.padding {
            return Err(refuse("the archive is cut short", b"the end"));
        }
        self.padding = 0;
        Ok(())
    }

    /// The next header; `None` at an empty one, or where the bytes end.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        self.reader.set_limit(BLOCK);
        let mut block = Vec::with_capacity(512);
        self.reader.read_to_end(&mut block)?;
        if block.is_empty() || (block.len() as u64 == BLOCK && block.iter().all(|byte| *byte == 0))
        {
            return Ok(None);
        }
        if block.len() as u64 != BLOCK {
            return Err(refuse("the archive is cut short", b"a header"));
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|byte| u32::from(*byte))
            .sum::<u32>()
            + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(refuse(
                "a header has a wrong checksum",
                &header.path_bytes(),
            ));
        }
        Ok(Some(header))
    }
}

/// The entry that a header and what preceded it describe.
fn entry(header: &Header, extensions: Extensions) -> Result<Entry, Error> {
    let path = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let wrong = |_| refuse("a header is damaged", &path);
    let id = |value: u64| u32::try_from(value).map_err(|_| refuse("an id is too large", &path));
    let device = || -> Result<_, Error> {
        let major = header.device_major().map_err(wrong)?.unwrap_or(0);
        let minor = header.device_minor().map_err(wrong)?.unwrap_or(0);
        Ok((major, minor))
    };
    let kind = match header.entry_type() {
        // By an old custom, a regular file whose name ends in a slash is a folder.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::Hardlink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        // A sparse file could fill the disk with what is not there.
        _ => return Err(refuse("a layer cannot have an entry of this type", &path)),
    };
    let target = extensions.target.or_else(|| {
        let target = header.link_name_bytes()?;
        Some(target.into_owned())
    });
    Ok(Entry {
        kind,
        target: target.unwrap_or_default(),
        mode: header.mode().map_err(wrong)? & 0o7777,
        uid: match extensions.uid {
            Some(uid) => uid,
            None => id(header.uid().map_err(wrong)?)?,
        },
        gid: match extensions.gid {
            Some(gid) => gid,
            None => id(header.gid().map_err(wrong)?)?,
        },
        mtime: match extensions.mtime {
            Some(mtime) => mtime,
            None => i64::try_from(header.mtime().map_err(wrong)?).unwrap_or(0),
        },
        xattrs: extensions.xattrs,
        path,
    })
}

impl Extensions {
    /// Reads PAX records: `LENGTH KEY=VALUE\n`, where the length in bytes is that of the whole record.
    fn read(&mut self, mut records: &[u8], name: &[u8]) -> Result<(), Error> {
        let damaged = || refuse("an attribute is damaged", name);
        while !records.is_empty() {
            let space = records
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(damaged)?;
            let length: usize = number(&records[..space]).ok_or_else(damaged)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(damaged());
            }
            let record = &records[space + 1..length - 1];
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(damaged)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number(value).ok_or_else(damaged)?),
                b"uid" => self.uid = Some(number(value).ok_or_else(damaged)?),
                b"gid" => self.gid = Some(number(value).ok_or_else(damaged)?),
                b"mtime" => {
                    let whole = value.split(|byte| *byte == b'.').next().unwrap_or(value);
                    self.mtime = Some(number(whole).ok_or_else(damaged)?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refuse("a layer cannot have a sparse file", name));
                }
                key => {
                    if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.")
                        && let Ok(attribute) = String::from_utf8(attribute.to_vec())
                    {
                        self.xattrs.push((attribute, value.to_vec()));
                    }
                }
            }
            records = &records[length..];
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A name without the end that C gives it.
fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}
