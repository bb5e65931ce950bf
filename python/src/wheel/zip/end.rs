//! The end of an archive, which says where its central directory is (APPNOTE 4.3.14 to 4.3.16).

use std::fs::File;

use super::fields::{Fields, read_at};
use crate::wheel::WheelError;

const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
/// Lengths of these records, in bytes, without comment and extensible data.
const END_LENGTH: usize = 22;
const END64_LENGTH: usize = 56;
const LOCATOR64_LENGTH: usize = 20;

/// Where the central directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) entries: u64,
}

/// Finds the central directory of a file of `length` bytes. It ends where the records of the end begin: what
/// some readers find by that and others by its offset is the same.
pub(super) fn directory(file: &File, length: u64) -> Result<Directory, WheelError> {
    let none = || WheelError::zip("there is no end of a central directory");
    let tail_length = length.min((END_LENGTH + LOCATOR64_LENGTH) as u64 + 0xffff);
    let mut tail = vec![0; usize::try_from(tail_length).map_err(|_| none())?];
    read_at(file, length - tail_length, &mut tail)?;
    let ends = |at: &usize| {
        let comment = tail[at + 20..at + 22].try_into().map(u16::from_le_bytes);
        tail[*at..].starts_with(END)
            && comment.is_ok_and(|comment| at + END_LENGTH + usize::from(comment) == tail.len())
    };
    let mut found = (0..=tail.len().saturating_sub(END_LENGTH))
        .filter(|at| at + END_LENGTH <= tail.len())
        .filter(ends);
    let at = found.next().ok_or_else(none)?;
    if found.next().is_some() {
        return Err(WheelError::zip("it has several ends"));
    }
    let mut fields = Fields(&tail[at + END.len()..]);
    let (disk, first_disk) = (fields.u16()?, fields.u16()?);
    let (_, entries) = (fields.u16()?, fields.u16()?);
    let (size, offset) = (fields.u32()?, fields.u32()?);
    let mut directory = Directory {
        offset: offset.into(),
        size: size.into(),
        entries: entries.into(),
    };
    let mut end = length - tail_length + at as u64;
    let locator = at.checked_sub(LOCATOR64_LENGTH).map(|from| &tail[from..at]);
    match locator {
        Some(locator) if locator.starts_with(LOCATOR64) => {
            let large = directory64(file, locator, &mut end)?;
            let same = |small: u64, unknown: u64, large: u64| small == large || small == unknown;
            if !same(directory.entries, u16::MAX.into(), large.entries)
                || !same(directory.size, u32::MAX.into(), large.size)
                || !same(directory.offset, u32::MAX.into(), large.offset)
            {
                return Err(WheelError::zip("its two ends disagree"));
            }
            directory = large;
        }
        _ if (disk, first_disk) != (0, 0) => {
            return Err(WheelError::zip("it spans several disks"));
        }
        _ => {}
    }
    if directory.offset.checked_add(directory.size) != Some(end) {
        return Err(WheelError::zip(
            "the central directory is not where its end says",
        ));
    }
    Ok(directory)
}

/// What the zip64 end says that `locator` points to; `end` moves from the locator's end to that record's begin.
fn directory64(file: &File, locator: &[u8], end: &mut u64) -> Result<Directory, WheelError> {
    let wrong = || WheelError::zip("its zip64 end is not where it says");
    let mut fields = Fields(&locator[LOCATOR64.len()..]);
    fields.skip(4)?;
    let at = fields.u64()?;
    let expected = end.checked_sub((LOCATOR64_LENGTH + END64_LENGTH) as u64);
    if expected != Some(at) {
        return Err(wrong());
    }
    let mut record = [0; END64_LENGTH];
    read_at(file, at, &mut record)?;
    if !record.starts_with(END64) {
        return Err(wrong());
    }
    let mut fields = Fields(&record[END64.len()..]);
    fields.skip(28)?;
    *end = at;
    let (entries, size, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
    Ok(Directory {
        offset,
        size,
        entries,
    })
}
