//! As much of ELF as says what a shared library is called: System V ABI, chapters 4 and 5.

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
}

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

/// The `DT_SONAME` of a shared library, or nothing when `bytes` is none or damaged.
pub(super) fn soname(bytes: &[u8]) -> Option<String> {
    let elf = Elf {
        bytes,
        wide: *bytes.get(4)? == 2,
        big: *bytes.get(5)? == 2,
    };
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let segments = elf.segments()?;
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC)?;
    let word = if elf.wide { 8 } else { 4 };
    let (mut strings, mut name) = (None, None);
    for at in (0..dynamic.size / (2 * word)).map(|index| dynamic.offset + index * 2 * word) {
        match elf.word(at)? {
            0 => break,
            DT_STRTAB => strings = Some(elf.word(at + word)?),
            DT_SONAME => name = Some(elf.word(at + word)?),
            _ => {}
        }
    }
    let (strings, name) = (strings?, name?);
    let load = segments.iter().find(|segment| {
        segment.kind == PT_LOAD
            && (segment.address..segment.address.checked_add(segment.size).unwrap_or(0))
                .contains(&strings)
    })?;
    let at = (strings - load.address)
        .checked_add(load.offset)?
        .checked_add(name)?;
    let text = bytes.get(usize::try_from(at).ok()?..)?;
    let text = text.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?;
    (!text.is_empty() && text.len() < 256 && !text.contains('/')).then(|| text.to_owned())
}

impl Elf<'_> {
    fn number(&self, at: u64, size: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }

    fn word(&self, at: u64) -> Option<u64> {
        self.number(at, if self.wide { 8 } else { 4 })
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        // e_phoff, e_phentsize, e_phnum; then p_offset, p_vaddr, p_filesz of each.
        let (table, size, count) = if self.wide {
            (32, 54, 56)
        } else {
            (28, 42, 44)
        };
        let (offset, address, length) = if self.wide { (8, 16, 32) } else { (4, 8, 16) };
        let (table, size, count) = (
            self.word(table)?,
            self.number(size, 2)?,
            self.number(count, 2)?,
        );
        (0..count)
            .map(|index| {
                let at = table.checked_add(index * size)?;
                Some(Segment {
                    kind: self.number(at, 4)?,
                    offset: self.word(at.checked_add(offset)?)?,
                    address: self.word(at.checked_add(address)?)?,
                    size: self.word(at.checked_add(length)?)?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_has_no_name() {
        assert_eq!(soname(b""), None);
        assert_eq!(soname(b"#!/bin/sh\n"), None);
        let mut header = vec![0xff; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(soname(&header), None);
    }
}
