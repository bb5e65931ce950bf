//! The entries of a layer: ustar, with GNU's long names and PAX records (POSIX.1-2001, pax Interchange
//! Format), each of bounded size.

use std::io::{self, Read, Take};

use tar::{EntryType, Header};

use super::path::shown;

/// Size of a block, in bytes.
const BLOCK: u64 = 512;
/// The most that may precede one entry, in bytes: long names and PAX records together.
const EXTENSIONS: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A further name of a file of the same layer.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device of a major and a minor number.
    Character(u32, u32),
    /// A block device of a major and a minor number.
    Block(u32, u32),
}

/// One entry, as the archive has it.
#[derive(Debug)]
pub struct LayerEntry {
    /// Its path, as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Where a link leads.
    pub target: Vec<u8>,
    /// Size of its content, in bytes.
    pub size: u64,
    /// Permissions, with the bits for set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, by name.
    pub xattrs: Vec<(String, Vec<u8>)>,
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

/// Why a layer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A layer is not what a layer may be.
    #[error("{reason}: `{entry}`")]
    Refused {
        /// What is wrong, a lower-case fragment.
        reason: &'static str,
        /// The entry's path, or what stands in for it.
        entry: String,
    },
    /// Its bytes cannot be had.
    #[error("cannot read a layer")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// An entry that cannot be.
    pub fn refuse(reason: &'static str, entry: &[u8]) -> Self {
        Self::Refused {
            reason,
            entry: shown(&entry[..entry.len().min(256)]),
        }
    }
}

fn refuse(reason: &'static str, entry: &[u8]) -> ReadError {
    ReadError::refuse(reason, entry)
}

/// The uncompressed tar of a layer, which is not trusted, read from start to end.
#[derive(Debug)]
pub struct LayerReader<R> {
    reader: Take<R>,
    /// Bytes between the current entry's content and the next header.
    padding: u64,
}

impl<R: Read> LayerReader<R> {
    /// Reads nothing yet.
    pub fn new(reader: R) -> Self {
        Self {
            reader: reader.take(0),
            padding: 0,
        }
    }

    /// The content of the entry that was read last.
    pub fn content(&mut self) -> impl Read {
        &mut self.reader
    }

    /// The next entry; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<LayerEntry>, ReadError> {
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
                let size = extensions.size.unwrap_or(size);
                self.advance(size, &name)?;
                return entry(&header, size, extensions).map(Some);
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
    fn advance(&mut self, size: u64, name: &[u8]) -> Result<(), ReadError> {
        let padded = size
            .checked_next_multiple_of(BLOCK)
            .ok_or_else(|| refuse("an entry is too large", name))?;
        self.padding = padded - size;
        self.reader.set_limit(size);
        Ok(())
    }

    /// Reads over what is left of the content.
    fn skip_content(&mut self) -> Result<(), ReadError> {
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
    fn header(&mut self) -> Result<Option<Header>, ReadError> {
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
fn entry(header: &Header, size: u64, extensions: Extensions) -> Result<LayerEntry, ReadError> {
    let path = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let wrong = |_| refuse("a header is damaged", &path);
    let id = |value: u64| u32::try_from(value).map_err(|_| refuse("an id is too large", &path));
    let device = || -> Result<_, ReadError> {
        let major = header.device_major().map_err(wrong)?.unwrap_or(0);
        let minor = header.device_minor().map_err(wrong)?.unwrap_or(0);
        Ok((major, minor))
    };
    let kind = match header.entry_type() {
        // By an old custom, a regular file whose name ends in a slash is a folder.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Link => EntryKind::Hardlink,
        EntryType::Fifo => EntryKind::Fifo,
        EntryType::Char => device().map(|(major, minor)| EntryKind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| EntryKind::Block(major, minor))?,
        // A sparse file could fill the disk with what is not there.
        _ => return Err(refuse("a layer cannot have an entry of this type", &path)),
    };
    let target = extensions.target.or_else(|| {
        let target = header.link_name_bytes()?;
        Some(target.into_owned())
    });
    Ok(LayerEntry {
        kind,
        target: target.unwrap_or_default(),
        size,
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
    fn read(&mut self, mut records: &[u8], name: &[u8]) -> Result<(), ReadError> {
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
