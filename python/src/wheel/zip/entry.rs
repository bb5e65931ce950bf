//! Entries, as the central directory describes them (APPNOTE 4.3.12).

use super::fields::Fields;
use crate::wheel::WheelError;

const CENTRAL: u32 = 0x0201_4b50;
/// Extra fields: zip64 sizes, and a name that takes the place of the entry's own.
const ZIP64: u16 = 0x0001;
const UNICODE_PATH: u16 = 0x7075;
/// The flag of encrypted entries.
const ENCRYPTED: u16 = 1;
/// The longest name, in bytes: what Linux allows a path.
const NAME_LIMIT: usize = 4096;

/// How an entry is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wheel) enum Method {
    Stored,
    Deflated,
}

/// A file of an archive.
#[derive(Debug, Clone)]
pub(in crate::wheel) struct Entry {
    pub(in crate::wheel) name: String,
    pub(in crate::wheel) method: Method,
    pub(in crate::wheel) crc32: u32,
    pub(in crate::wheel) compressed_size: u64,
    pub(in crate::wheel) size: u64,
    pub(in crate::wheel) executable: bool,
    pub(super) flags: u16,
    pub(super) offset: u64,
}

/// Reads the next header of the central directory: `None` for a folder.
pub(super) fn entry(fields: &mut Fields<'_>) -> Result<Option<Entry>, WheelError> {
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
    let name = name(fields.take(name_length.into())?)?;
    let refused = |what: &str| WheelError::zip(format!("`{name}` {what}"));
    extra(
        fields.take(extra_length.into())?,
        &name,
        &mut [&mut size, &mut compressed_size, &mut offset],
    )?;
    fields.skip(comment_length.into())?;
    if flags & ENCRYPTED != 0 {
        return Err(refused("is encrypted"));
    }
    let unix = (made_by >> 8 == 3).then_some(attributes >> 16);
    if name.ends_with('/') {
        return match size {
            0 => Ok(None),
            _ => Err(refused("is a folder with content")),
        };
    }
    if !matches!(unix.unwrap_or_default() & 0o170_000, 0 | 0o100_000) {
        return Err(refused("is neither a file nor a folder"));
    }
    let method = match method {
        0 if size == compressed_size => Method::Stored,
        8 => Method::Deflated,
        _ => return Err(refused("uses a compression that wheels do not have")),
    };
    Ok(Some(Entry {
        method,
        crc32,
        compressed_size,
        size,
        executable: unix.is_some_and(|mode| mode & 0o111 != 0),
        flags,
        offset,
        name,
    }))
}

/// Reads the extra fields of a header: those of `numbers` that are too large for it, in their order, and no
/// other name.
pub(super) fn extra(bytes: &[u8], name: &str, numbers: &mut [&mut u64]) -> Result<(), WheelError> {
    let mut fields = Fields(bytes);
    while fields.0.len() >= 4 {
        let (id, length) = (fields.u16()?, fields.u16()?);
        let mut data = Fields(fields.take(length.into())?);
        if id == ZIP64 {
            for number in numbers.iter_mut() {
                if **number == u64::from(u32::MAX) {
                    **number = data.u64()?;
                }
            }
        } else if id == UNICODE_PATH && data.0.get(5..) != Some(name.as_bytes()) {
            return Err(WheelError::zip(format!(
                "`{name}` has another name for other readers"
            )));
        }
    }
    Ok(())
}

/// A name that stays inside, and that all readers take for the same.
fn name(bytes: &[u8]) -> Result<String, WheelError> {
    let name = std::str::from_utf8(bytes).map_err(|_| WheelError::zip("a name is not UTF-8"))?;
    let plain = name.strip_suffix('/').unwrap_or(name);
    if plain.split('/').any(|part| matches!(part, "" | "." | ".."))
        || name.contains(['\\', '\0', '\n', '\r'])
        || name.len() > NAME_LIMIT
    {
        return Err(WheelError::zip(format!(
            "`{}` is a path that no wheel may hold",
            name.escape_debug()
        )));
    }
    Ok(name.to_owned())
}
