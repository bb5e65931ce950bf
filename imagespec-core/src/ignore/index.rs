//! The paths that git tracks: its index file, versions 2 to 4 (gitformat-index).

use std::collections::BTreeSet;

/// The tracked paths, relative to the top of the work tree, or `None` where the bytes are no index. `hash` is the
/// length of the repository's object names in bytes: 20 or 32.
pub(super) fn tracked(bytes: &[u8], hash: usize) -> Option<BTreeSet<String>> {
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
        let named = start + 40 + hash;
        let flags = u16::from_be_bytes(bytes.get(named..named + 2)?.try_into().ok()?);
        at = named
            + 2
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

    fn entry(path: &[u8], hash: usize, padded: bool) -> Vec<u8> {
        let mut bytes = vec![0; 40 + hash];
        bytes.extend([0, 0]);
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
        let plain = [head(2), entry(b"a/b.py", 20, true), entry(b"a/c", 20, true)].concat();
        let expected = BTreeSet::from(["a/b.py".to_owned(), "a/c".to_owned()]);
        assert_eq!(tracked(&plain, 20), Some(expected.clone()));
        let packed = [
            head(4),
            entry(b"\0a/b.py", 20, false),
            entry(b"\x04c", 20, false),
        ]
        .concat();
        assert_eq!(tracked(&packed, 20), Some(expected.clone()));
        let long = [head(2), entry(b"a/b.py", 32, true), entry(b"a/c", 32, true)].concat();
        assert_eq!(tracked(&long, 32), Some(expected));
        assert_eq!(tracked(b"DIRC\0\0\0\x09\0\0\0\0", 20), None);
        assert_eq!(tracked(&plain[..40], 20), None);
    }
}
