//! The paths that git tracks: its index file, versions 2 to 4 (gitformat-index).

use std::collections::BTreeSet;

/// The tracked paths, relative to the top of the work tree, or `None` where the bytes are no index.
pub(super) fn tracked(bytes: &[u8]) -> Option<BTreeSet<String>> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let version = number(4)?;
    if bytes.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
        return None;
    }
    let mut paths = BTreeSet::new();
    let mut at = 12;
    let mut previous: Vec<u8> = Vec::new();
    for _ in 0..number(8)? {
        let start = at;
        let flags = u16::from_be_bytes(bytes.get(start + 60..start + 62)?.try_into().ok()?);
        at = start
            + 62
            + if version >= 3 && flags & 0x4000 != 0 {
                2
            } else {
                0
            };
        if version == 4 {
            let (strip, rest) = offset(bytes.get(at..)?)?;
            at = bytes.len() - rest.len();
            previous.truncate(previous.len().checked_sub(strip)?);
        } else {
            previous.clear();
        }
        let length = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
        previous.extend(&bytes[at..at + length]);
        at += length + 1;
        if version < 4 {
            // Entries are padded with one to eight NULs to a multiple of eight bytes.
            at = start + (at - start).next_multiple_of(8);
        }
        paths.insert(String::from_utf8_lossy(&previous).into_owned());
    }
    Some(paths)
}

/// A number of git's offset encoding, and what follows it.
fn offset(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (mut byte, mut rest) = bytes.split_first()?;
    let mut number = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        (byte, rest) = rest.split_first()?;
        number = number
            .checked_add(1)?
            .checked_mul(128)?
            .checked_add(usize::from(byte & 0x7f))?;
    }
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[u8], flags: u16, padded: bool) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(path);
        bytes.push(0);
        if padded {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    #[test]
    fn plain_and_compressed_indexes_are_read() {
        let head = |version: u8| [b"DIRC".as_slice(), &[0, 0, 0, version, 0, 0, 0, 2]].concat();
        let plain = [head(2), entry(b"a/b.py", 0, true), entry(b"a/c", 0, true)].concat();
        let expected = BTreeSet::from(["a/b.py".to_owned(), "a/c".to_owned()]);
        assert_eq!(tracked(&plain), Some(expected.clone()));
        let packed = [
            head(4),
            entry(b"\0a/b.py", 0, false),
            entry(b"\x04c", 0, false),
        ]
        .concat();
        assert_eq!(tracked(&packed), Some(expected));
        assert_eq!(tracked(b"DIRC\0\0\0\x09\0\0\0\0"), None);
        assert_eq!(tracked(&plain[..40]), None);
    }
}
