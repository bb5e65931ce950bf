//! `/etc/ld.so.cache` as ldconfig writes it: glibc, `sysdeps/generic/dl-cache.h`, `struct cache_file_new`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::facts::Library;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Bytes before the entries.
const HEADER: usize = 48;
/// Bytes of an entry.
const ENTRY: usize = 24;

/// Flags of an architecture's libraries (`dl-cache.h`, `FLAG_…`), and whether its numbers are big endian.
fn flags(architecture: &str) -> Option<(u32, bool)> {
    Some(match architecture {
        "amd64" => (0x0303, false),
        "arm64" => (0x0a03, false),
        "armhf" => (0x0903, false),
        "armel" => (0x0b03, false),
        "i386" => (0x0003, false),
        "ppc64el" => (0x0503, false),
        "s390x" => (0x0403, true),
        "riscv64" => (0x1003, false),
        _ => return None,
    })
}

/// The cache of `libraries`; `exists` says whether a path (below the root, merged) is there. Nothing for an
/// architecture whose flags are not known: the loader then searches its folders itself.
pub(super) fn write(
    libraries: &[Library],
    exists: &BTreeSet<&str>,
    architecture: &str,
) -> Option<Vec<u8>> {
    let (flags, big) = flags(architecture)?;
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    for library in libraries {
        let (folder, _) = library.path.rsplit_once('/')?;
        let by_soname = format!("{folder}/{}", library.soname);
        let path = if exists.contains(by_soname.as_str()) {
            &by_soname
        } else {
            &library.path
        };
        let path = path.strip_prefix("usr").unwrap_or(path).to_owned();
        // A folder named after the machine comes before `/lib`, as in ld.so.conf.d.
        let place = found.entry(&library.soname).or_insert_with(|| path.clone());
        if path.matches('/').count() > place.matches('/').count() {
            *place = path;
        }
    }
    let mut found: Vec<(&str, String)> = found.into_iter().collect();
    found.sort_by(|left, right| compare(right.0.as_bytes(), left.0.as_bytes()));

    let number = |value: usize| {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        if big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let mut strings = Vec::new();
    let mut entries = Vec::new();
    for (soname, path) in &found {
        let mut place = |text: &str| {
            let at = HEADER + ENTRY * found.len() + strings.len();
            strings.extend(text.as_bytes());
            strings.push(0);
            number(at)
        };
        let (key, value) = (place(soname), place(path));
        entries.extend(number(flags as usize));
        entries.extend(key);
        entries.extend(value);
        entries.extend([0; 12]);
    }
    let mut cache = MAGIC.to_vec();
    cache.extend(number(found.len()));
    cache.extend(number(strings.len()));
    cache.push(if big { 3 } else { 2 });
    cache.resize(HEADER, 0);
    cache.extend(entries);
    cache.extend(strings);
    Some(cache)
}

/// The order the loader searches by: glibc, `elf/dl-cache.c`, `_dl_cache_libcmp`.
fn compare(mut left: &[u8], mut right: &[u8]) -> Ordering {
    let digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
    while let Some((&first, rest)) = left.split_first() {
        match (digit(left), digit(right)) {
            (true, true) => {
                let (left_number, left_rest) = take(left);
                let (right_number, right_rest) = take(right);
                if left_number != right_number {
                    return left_number.cmp(&right_number);
                }
                (left, right) = (left_rest, right_rest);
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => match right.split_first() {
                Some((&other, others)) if other == first => (left, right) = (rest, others),
                other => return first.cmp(&other.map_or(0, |(byte, _)| *byte)),
            },
        }
    }
    0.cmp(&right.len())
}

fn take(text: &[u8]) -> (u64, &[u8]) {
    let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..end].iter().fold(0_u64, |number, digit| {
        number
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit - b'0'))
    });
    (value, &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_the_loader_searches() {
        for (smaller, larger) in [
            ("libz.so.1", "libz.so.2"),
            ("libz.so.9", "libz.so.10"),
            ("liba.so", "libb.so"),
            ("lib.so", "lib1.so"),
            ("libc", "libc.so.6"),
        ] {
            assert_eq!(
                compare(smaller.as_bytes(), larger.as_bytes()),
                Ordering::Less,
                "{smaller}"
            );
            assert_eq!(
                compare(larger.as_bytes(), smaller.as_bytes()),
                Ordering::Greater
            );
        }
        assert_eq!(compare(b"libz.so.1", b"libz.so.1"), Ordering::Equal);
    }
}
