//! Zip archives (APPNOTE 6.3.10), read by their central directory, with raw access to deflated entries.
//!
//! Only what wheels need is accepted: stored and deflated entries, zip64, data descriptors. Everything in
//! which two readers of the archive could see different things is refused.

use std::collections::HashSet;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use fs_err::File;

use super::WheelError;

const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// The largest central directory that is read, in bytes.
const DIRECTORY_LIMIT: u64 = 128 << 20;
/// The most that an archive may inflate to, in bytes, and by which factor at most when that is much.
const INFLATED_LIMIT: u64 = 64 << 30;
const RATIO_LIMIT: u64 = 1100;

/// How an entry is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// An entry, as the central directory describes it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) crc32: u32,
    pub(super) compressed_size: u64,
    pub(super) size: u64,
    pub(super) executable: bool,
    offset: u64,
}

/// An open archive.
#[derive(Debug)]
pub(super) struct Zip {
    file: Arc<std::fs::File>,
    pub(super) entries: Vec<Entry>,
}

impl Zip {
    pub(super) fn open(mut file: File) -> Result<Self, WheelError> {
        let length = file.metadata()?.len();
        let (offset, size, count) = directory(&mut file, length)?;
        if size > DIRECTORY_LIMIT || offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(WheelError::zip(
                "the central directory is not inside the file",
            ));
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        (&mut file).take(size).read_to_end(&mut bytes)?;
        let mut fields = Fields(&bytes);
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        while !fields.0.is_empty() {
            if let Some(entry) = entry(&mut fields)? {
                if !names.insert(entry.name.to_ascii_lowercase())
                    && entries.iter().any(|other: &Entry| other.name == entry.name)
                {
                    return Err(WheelError::zip(format!(
                        "two entries of one name: `{}`",
                        entry.name
                    )));
                }
                entries.push(entry);
            }
        }
        let counted = count_headers(&bytes)?;
        if count != counted {
            return Err(WheelError::zip(format!(
                "{counted} entries where {count} are declared"
            )));
        }
        let zip = Self {
            file: Arc::new(file.into_parts().0),
            entries,
        };
        zip.check(offset)?;
        Ok(zip)
    }

    /// Local headers agree with the directory, nothing overlaps, and nothing explodes.
    fn check(&self, directory: u64) -> Result<(), WheelError> {
        let mut spans = Vec::with_capacity(self.entries.len());
        let mut inflated = 0_u64;
        for entry in &self.entries {
            let start = self.data_offset(entry)?;
            let end = start
                .checked_add(entry.compressed_size)
                .filter(|end| *end <= directory);
            let end = end.ok_or_else(|| {
                WheelError::zip(format!("`{}` is not inside the file", entry.name))
            })?;
            spans.push((entry.offset, end));
            inflated = inflated.saturating_add(entry.size);
            let bomb =
                entry.size > 1 << 20 && entry.size / entry.compressed_size.max(1) > RATIO_LIMIT;
            if bomb || inflated > INFLATED_LIMIT {
                return Err(WheelError::zip(format!(
                    "`{}` inflates to more than it may",
                    entry.name
                )));
            }
        }
        spans.sort_unstable();
        if spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(WheelError::zip("two entries share bytes of the file"));
        }
        Ok(())
    }

    /// Where an entry's bytes begin, once its local header was compared with the directory.
    fn data_offset(&self, entry: &Entry) -> Result<u64, WheelError> {
        let wrong = |what| {
            WheelError::zip(format!(
                "`{}` has another {what} in its local header",
                entry.name
            ))
        };
        let mut header = [0; 30];
        read_at(&self.file, entry.offset, &mut header)?;
        let mut fields = Fields(&header);
        if fields.u32()? != LOCAL {
            return Err(wrong("signature"));
        }
        let (_, flags, method) = (fields.u16()?, fields.u16()?, fields.u16()?);
        fields.skip(4)?;
        let (crc32, compressed_size, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (name_length, extra_length) = (fields.u16()?, fields.u16()?);
        if method != (if entry.method == Method::Stored { 0 } else { 8 }) || flags & 1 != 0 {
            return Err(wrong("method"));
        }
        let mut name = vec![0; name_length.into()];
        read_at(&self.file, entry.offset + 30, &mut name)?;
        if name != entry.name.as_bytes() {
            return Err(wrong("name"));
        }
        let described = flags & 8 != 0;
        let is = |declared: u32, found: u64| declared == u32::MAX || u64::from(declared) == found;
        if !described
            && (crc32 != entry.crc32
                || !is(compressed_size, entry.compressed_size)
                || !is(size, entry.size))
        {
            return Err(wrong("size or checksum"));
        }
        Ok(entry.offset + 30 + u64::from(name_length) + u64::from(extra_length))
    }

    /// An entry's bytes as they stand in the file.
    pub(super) fn raw(&self, entry: &Entry) -> Result<impl Read + use<>, WheelError> {
        let offset = self.data_offset(entry)?;
        Ok(Span {
            file: Arc::clone(&self.file),
            offset,
            left: entry.compressed_size,
        })
    }

    /// The whole of a small entry, at most `limit` bytes, its checksum verified.
    pub(super) fn read(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, WheelError> {
        let wrong = |what| WheelError::zip(format!("`{}` {what}", entry.name));
        if entry.size > limit {
            return Err(wrong("is larger than it may be"));
        }
        let mut bytes = Vec::new();
        let raw = self.raw(entry)?;
        match entry.method {
            Method::Stored => raw.take(limit + 1).read_to_end(&mut bytes)?,
            Method::Deflated => DeflateDecoder::new(raw)
                .take(limit + 1)
                .read_to_end(&mut bytes)?,
        };
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        if bytes.len() as u64 != entry.size || crc.sum() != entry.crc32 {
            return Err(wrong("does not have the size or checksum it says"));
        }
        Ok(bytes)
    }
}

/// Offset, size and number of entries of the central directory.
fn directory(file: &mut File, length: u64) -> Result<(u64, u64, u64), WheelError> {
    let none = || WheelError::zip("there is no end of a central directory");
    let tail_length = length.min(22 + 0xffff);
    file.seek(SeekFrom::Start(length - tail_length))?;
    let mut tail = Vec::new();
    file.take(tail_length).read_to_end(&mut tail)?;
    let fits = |at: &usize| {
        let comment = tail
            .get(at + 20..at + 22)
            .map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        tail[*at..].starts_with(&END.to_le_bytes())
            && comment.is_some_and(|comment| at + 22 + comment == tail.len())
    };
    let at = (0..tail.len().saturating_sub(21))
        .rev()
        .find(fits)
        .ok_or_else(none)?;
    let mut fields = Fields(&tail[at + 4..]);
    let (disk, start_disk, _, count) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
    let (size, offset) = (fields.u32()?, fields.u32()?);
    if count != u16::MAX && size != u32::MAX && offset != u32::MAX {
        return match (disk, start_disk) {
            (0, 0) => Ok((offset.into(), size.into(), count.into())),
            _ => Err(WheelError::zip("it spans several disks")),
        };
    }
    let at = (length - tail_length + at as u64)
        .checked_sub(20)
        .ok_or_else(none)?;
    let mut locator = [0; 20];
    read_at(file.file(), at, &mut locator)?;
    let mut fields = Fields(&locator);
    if fields.u32()? != LOCATOR64 {
        return Err(none());
    }
    fields.skip(4)?;
    let mut end = [0; 56];
    read_at(file.file(), fields.u64()?, &mut end)?;
    let mut fields = Fields(&end);
    if fields.u32()? != END64 {
        return Err(none());
    }
    fields.skip(28)?;
    let (count, size, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
    Ok((offset, size, count))
}

/// The next entry of the central directory, or `None` for a folder.
fn entry(fields: &mut Fields<'_>) -> Result<Option<Entry>, WheelError> {
    if fields.u32()? != CENTRAL {
        return Err(WheelError::zip("the central directory is damaged"));
    }
    let (made_by, _, flags, method) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
    fields.skip(4)?;
    let crc32 = fields.u32()?;
    let (mut compressed_size, mut size) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    let (name_length, extra_length, comment_length) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.skip(4)?;
    let (attributes, mut offset) = (fields.u32()?, u64::from(fields.u32()?));
    let name = fields.take(name_length.into())?;
    let name = std::str::from_utf8(name)
        .map_err(|_| WheelError::zip("a name is not UTF-8"))?
        .to_owned();
    let mut extra = Fields(fields.take(extra_length.into())?);
    fields.skip(comment_length.into())?;
    while extra.0.len() >= 4 {
        let (id, length) = (extra.u16()?, extra.u16()?);
        let mut data = Fields(extra.take(length.into())?);
        if id == 1 {
            for value in [&mut size, &mut compressed_size, &mut offset] {
                if *value == u64::from(u32::MAX) {
                    *value = data.u64()?;
                }
            }
        }
    }
    let refused = |what: &str| Err(WheelError::zip(format!("`{name}` {what}")));
    let folder = name.ends_with('/');
    let plain = name.strip_suffix('/').unwrap_or(&name);
    if plain.split('/').any(|part| matches!(part, "" | "." | ".."))
        || name.contains(['\\', '\0', '\n', '\r'])
        || name.len() > 4096
    {
        return refused("is a path that no wheel may hold");
    }
    if flags & 1 != 0 {
        return refused("is encrypted");
    }
    let unix = (made_by >> 8 == 3).then_some(attributes >> 16);
    let kind = unix.map_or(0, |mode| mode & 0o170_000);
    if folder {
        return if size == 0 {
            Ok(None)
        } else {
            refused("is a folder with content")
        };
    }
    if !matches!(kind, 0 | 0o100_000) {
        return refused("is neither a file nor a folder");
    }
    let method = match method {
        0 if size == compressed_size => Method::Stored,
        8 => Method::Deflated,
        _ => return refused("uses a compression that wheels do not have"),
    };
    let executable = unix.is_some_and(|mode| mode & 0o111 != 0);
    Ok(Some(Entry {
        name,
        method,
        crc32,
        compressed_size,
        size,
        executable,
        offset,
    }))
}

/// Little-endian fields of a header.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WheelError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| WheelError::zip("a header is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), WheelError> {
        self.take(count).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WheelError> {
        let bytes = self.take(N)?;
        bytes
            .try_into()
            .map_err(|_| WheelError::zip("a header is cut off"))
    }

    fn u16(&mut self) -> Result<u16, WheelError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WheelError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WheelError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The number of headers in a whole directory, folders included.
fn count_headers(directory: &[u8]) -> Result<u64, WheelError> {
    let mut fields = Fields(directory);
    let mut count = 0;
    while !fields.0.is_empty() {
        fields.skip(28)?;
        let lengths =
            usize::from(fields.u16()?) + usize::from(fields.u16()?) + usize::from(fields.u16()?);
        fields.skip(12 + lengths)?;
        count += 1;
    }
    Ok(count)
}

struct Span {
    file: Arc<std::fs::File>,
    offset: u64,
    left: u64,
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = pread(&self.file, self.offset, &mut buffer[..most])?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn read_at(file: &std::fs::File, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), WheelError> {
    while !buffer.is_empty() {
        match pread(file, offset, buffer)? {
            0 => return Err(WheelError::zip("a header is cut off")),
            count => {
                offset += count as u64;
                buffer = &mut buffer[count..];
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn pread(file: &std::fs::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}
