//! Archives, and the agreement of their two descriptions of every entry.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use super::end::directory;
use super::entry::{Entry, Method, entry, extra};
use super::fields::{Fields, read_at};
use crate::wheel::WheelError;

const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
/// The flag of entries whose size and checksum follow them.
const DESCRIBED: u16 = 1 << 3;
/// Flags in which both headers of an entry agree: encryption, descriptor, strong encryption, UTF-8, masking.
const FLAGS: u16 = 1 | DESCRIBED | 1 << 6 | 1 << 11 | 1 << 13;
/// The largest central directory, in bytes, and its most entries: several times what any known wheel has.
const DIRECTORY_LIMIT: u64 = 32 << 20;
const ENTRIES_LIMIT: u64 = 200_000;
/// The most that an archive may inflate to, in bytes; and by which factor, where that is more than `FREE`.
const INFLATED_LIMIT: u64 = 32 << 30;
const FACTOR_LIMIT: u64 = 100;
const FREE: u64 = 256 << 20;

/// An open archive.
#[derive(Debug)]
pub(in crate::wheel) struct Zip {
    file: Arc<File>,
    pub(in crate::wheel) entries: Vec<Entry>,
}

impl Zip {
    pub(in crate::wheel) fn open(file: fs_err::File) -> Result<Self, WheelError> {
        let length = file.metadata()?.len();
        let file = file.into_parts().0;
        let directory = directory(&file, length)?;
        if directory.size > DIRECTORY_LIMIT || directory.entries > ENTRIES_LIMIT {
            return Err(WheelError::zip("it has more entries than it may"));
        }
        let size = usize::try_from(directory.size).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        read_at(&file, directory.offset, &mut bytes)?;
        let mut fields = Fields(&bytes);
        let mut entries = Vec::new();
        let mut count = 0_u64;
        while !fields.is_empty() {
            entries.extend(entry(&mut fields)?);
            count += 1;
        }
        if count != directory.entries {
            return Err(WheelError::zip(format!(
                "it has {count} entries where its end says {}",
                directory.entries
            )));
        }
        let mut names = HashSet::with_capacity(entries.len());
        if let Some(twice) = entries.iter().find(|entry| !names.insert(&entry.name)) {
            let problem = format!("it has two entries of one name: `{}`", twice.name);
            return Err(WheelError::zip(problem));
        }
        let zip = Self {
            file: Arc::new(file),
            entries,
        };
        zip.check(directory.offset)?;
        Ok(zip)
    }

    /// Local headers agree with the directory, nothing overlaps, and nothing explodes.
    fn check(&self, directory: u64) -> Result<(), WheelError> {
        let mut spans = Vec::with_capacity(self.entries.len());
        let mut inflated = 0_u64;
        for entry in &self.entries {
            let end = self
                .data_offset(entry)?
                .checked_add(entry.compressed_size)
                .filter(|end| *end <= directory)
                .ok_or_else(|| wrong(entry, "is not inside the file"))?;
            let end = if entry.flags & DESCRIBED == 0 {
                end
            } else {
                end + self.descriptor(entry, end)?
            };
            spans.push((entry.offset, end));
            inflated = inflated.saturating_add(entry.size);
        }
        let factor = inflated / directory.max(1);
        if inflated > INFLATED_LIMIT || (inflated > FREE && factor > FACTOR_LIMIT) {
            return Err(WheelError::zip(format!(
                "it inflates to more than it may: {inflated} bytes"
            )));
        }
        spans.sort_unstable();
        if spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(WheelError::zip("two entries share bytes of the file"));
        }
        Ok(())
    }

    /// Where an entry's bytes begin, once its local header was compared with the directory (APPNOTE 4.3.7).
    fn data_offset(&self, entry: &Entry) -> Result<u64, WheelError> {
        let mut header = [0; 30];
        read_at(&self.file, entry.offset, &mut header)?;
        let mut fields = Fields(&header);
        let signature = fields.u32()?;
        let (_, flags, method) = (fields.u16()?, fields.u16()?, fields.u16()?);
        fields.skip(4)?;
        let crc32 = fields.u32()?;
        let (mut compressed_size, mut size) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let (name_length, extra_length) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
        let start = entry
            .offset
            .checked_add(header.len() as u64)
            .ok_or_else(|| wrong(entry, "is not inside the file"))?;
        let mut rest = vec![0; name_length + extra_length];
        read_at(&self.file, start, &mut rest)?;
        let (name, more) = rest.split_at(name_length);
        extra(more, &entry.name, &mut [&mut size, &mut compressed_size])?;
        let expected = if entry.method == Method::Stored { 0 } else { 8 };
        let agree = signature == LOCAL
            && method == expected
            && flags & FLAGS == entry.flags & FLAGS
            && name == entry.name.as_bytes()
            && (flags & DESCRIBED != 0
                || (crc32, compressed_size, size)
                    == (entry.crc32, entry.compressed_size, entry.size));
        if !agree {
            return Err(wrong(entry, "is something else by its local header"));
        }
        Ok(start + rest.len() as u64)
    }

    /// The length of the data descriptor at `offset`, once it was compared with the directory (APPNOTE 4.3.9).
    fn descriptor(&self, entry: &Entry, offset: u64) -> Result<u64, WheelError> {
        let low = |number: u64| u32::try_from(number).map(u32::to_le_bytes).ok();
        let small = low(entry.compressed_size)
            .zip(low(entry.size))
            .map(|(compressed, size)| [compressed, size].concat());
        let large = [
            entry.compressed_size.to_le_bytes(),
            entry.size.to_le_bytes(),
        ]
        .concat();
        let mut found = [0; 24];
        // Behind the last entry stand a directory and an end, which are longer than any descriptor.
        read_at(&self.file, offset, &mut found)?;
        for signature in [&DESCRIPTOR.to_le_bytes()[..], &[]] {
            for sizes in [Some(&large), small.as_ref()].into_iter().flatten() {
                let expected = [signature, &entry.crc32.to_le_bytes(), sizes].concat();
                if found.starts_with(&expected) {
                    return Ok(expected.len() as u64);
                }
            }
        }
        Err(wrong(entry, "is something else by its data descriptor"))
    }

    /// An entry's bytes as they stand in the file.
    pub(in crate::wheel) fn raw(&self, entry: &Entry) -> Result<impl Read + use<>, WheelError> {
        Ok(Span {
            file: Arc::clone(&self.file),
            offset: self.data_offset(entry)?,
            left: entry.compressed_size,
        })
    }

    /// The whole of a small entry, at most `limit` bytes, its checksum verified.
    pub(in crate::wheel) fn read(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, WheelError> {
        if entry.size > limit {
            return Err(wrong(entry, "is larger than it may be"));
        }
        let mut bytes = Vec::new();
        let raw = self.raw(entry)?;
        let most = entry.size + 1;
        match entry.method {
            Method::Stored => raw.take(most).read_to_end(&mut bytes)?,
            Method::Deflated => DeflateDecoder::new(raw)
                .take(most)
                .read_to_end(&mut bytes)?,
        };
        if bytes.len() as u64 != entry.size || crc32fast::hash(&bytes) != entry.crc32 {
            return Err(wrong(entry, "does not have the size or checksum it says"));
        }
        Ok(bytes)
    }
}

fn wrong(entry: &Entry, what: &str) -> WheelError {
    WheelError::zip(format!("`{}` {what}", entry.name))
}

struct Span {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
