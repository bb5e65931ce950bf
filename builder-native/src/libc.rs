//! Which C library a base has, by the library itself.

use std::fmt;

use imagespec_oci::tree::{File, Node, Tree};
use serde::{Deserialize, Serialize};

/// The largest C library that is read, in bytes.
const LIMIT: u64 = 8 << 20;

/// A C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Libc {
    /// GNU's, of a version.
    Glibc(u32, u32),
    /// musl.
    Musl,
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc(major, minor) => write!(f, "glibc {major}.{minor}"),
            Self::Musl => f.write_str("musl"),
        }
    }
}

/// How much is wanted of a file of a name, if it may be a C library.
pub(crate) fn wanted(name: &str) -> Option<u64> {
    if is_glibc(name) {
        Some(LIMIT)
    } else {
        is_musl(name).then_some(0)
    }
}

fn is_glibc(name: &str) -> bool {
    let version = |name: &str| name.strip_suffix(".so")?.strip_prefix("libc-2.").map(drop);
    name == "libc.so.6" || version(name).is_some()
}

fn is_musl(name: &str) -> bool {
    name.starts_with("ld-musl-") || name.starts_with("libc.musl-")
}

/// The C library of a base: that of `program` where its head tells, else what there is.
pub(crate) fn find(tree: &Tree, program: Option<&File>) -> Option<Libc> {
    let mut glibc = None;
    let mut musl = false;
    for (path, node) in tree.iter() {
        let Some((folder, name)) = std::str::from_utf8(path)
            .ok()
            .and_then(|path| path.rsplit_once('/'))
        else {
            continue;
        };
        musl |= is_musl(name);
        if let Node::File(file) = node
            && is_glibc(name)
            && is_searched(folder)
            && let Some(minor) = newest(&file.content)
        {
            // Of several the one that promises least.
            glibc = Some(glibc.map_or(minor, |least: u32| least.min(minor)));
        }
    }
    let says_musl =
        program.is_some_and(|file| file.content.windows(8).any(|part| part == b"/ld-musl"));
    match glibc {
        Some(minor) if !says_musl => Some(Libc::Glibc(2, minor)),
        _ => musl.then_some(Libc::Musl),
    }
}

/// Whether the loader looks for libraries in a folder.
fn is_searched(folder: &str) -> bool {
    let below = folder.strip_prefix("usr/").unwrap_or(folder);
    match below.split_once('/') {
        None => matches!(below, "lib" | "lib64"),
        Some((lib, triplet)) => {
            lib == "lib" && triplet.contains("-linux-gnu") && !triplet.contains('/')
        }
    }
}

/// The newest version of its interface that a glibc says it has: `GLIBC_2.36`.
fn newest(library: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"GLIBC_2.";
    let mut best = None;
    let mut rest = library;
    while let Some(at) = rest.iter().position(|byte| *byte == MARK[0]) {
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(MARK) {
            let digits = after
                .iter()
                .take(3)
                .take_while(|byte| byte.is_ascii_digit());
            let digits: String = digits.map(|digit| char::from(*digit)).collect();
            best = best.max(digits.parse().ok());
        }
        rest = &rest[1..];
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glibc_tells_the_newest_of_its_versions() {
        let library = b"GLIBC_2.2.5\0GLIBC_2.36\0GLIBC_2.4\0GLIBC_PRIVATE\0GGLIBC_2.35\0GLIBC_2.";
        assert_eq!(newest(library), Some(36));
        assert_eq!(newest(b"GLIBC_PRIVATE"), None);
    }

    #[test]
    fn only_what_the_loader_finds_counts() {
        for folder in [
            "lib",
            "usr/lib64",
            "usr/lib/x86_64-linux-gnu",
            "lib/aarch64-linux-gnu",
        ] {
            assert!(is_searched(folder), "{folder}");
        }
        for folder in [
            "opt/lib",
            "usr/lib/x86_64-linux-gnu/old",
            "usr/lib/x32",
            "usr",
        ] {
            assert!(!is_searched(folder), "{folder}");
        }
    }
}
