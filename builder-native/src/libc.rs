//! Which C library a base has, by the library itself.

use imagespec_oci::tree::{File, Node, Tree};
use imagespec_python::lock::Libc;

/// The largest C library that is read, in bytes.
const LIMIT: u64 = 8 << 20;
/// The least that a musl promises which does not say its version.
const OLDEST_MUSL: (u32, u32) = (1, 1);

/// How much is wanted of a file of a name, if it may be a C library.
pub(crate) fn wanted(name: &str) -> Option<u64> {
    // Debian's musl is called `libc.so`, and linked to by the name that programs have of it.
    (is_glibc(name) || is_musl(name) || name == "libc.so").then_some(LIMIT)
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
    let mut musl = None;
    for (path, node) in tree.iter() {
        let Some((folder, name)) = std::str::from_utf8(path)
            .ok()
            .and_then(|path| path.rsplit_once('/'))
        else {
            continue;
        };
        if is_musl(name)
            && let Some(file) = tree.file(&format!("{folder}/{name}"))
        {
            let found = musl_version(&file.content).unwrap_or(OLDEST_MUSL);
            musl = Some(musl.map_or(found, |least: (u32, u32)| least.min(found)));
        }
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
        _ => musl.map(|(major, minor)| Libc::Musl(major, minor)),
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

/// The version that a musl says it is, a text of its own: `1.2.3`.
fn musl_version(library: &[u8]) -> Option<(u32, u32)> {
    let texts = library.split(|byte| *byte == 0);
    let mut texts = texts.filter(|text| (5..=40).contains(&text.len()) && text.starts_with(b"1."));
    texts.find_map(|text| {
        let mut numbers = std::str::from_utf8(text).ok()?.splitn(3, '.');
        let mut number = || numbers.next()?.parse::<u32>().ok();
        let version = (number()?, number()?);
        // Of a version between two releases, `1.2.3-git-12-g…`, the number ends before it does.
        let patch = numbers.next()?.split('-').next()?;
        patch.parse::<u32>().ok().map(|_| version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_musl_tells_its_version() {
        let library = b"\x7fELF\x001.5\x00127.0.0.1\x001.2.x\x001.2.3\x00musl libc (x86_64)\n\0";
        assert_eq!(musl_version(library), Some((1, 2)));
        assert_eq!(musl_version(b"\x001.1.24-git-3-gabc\x00"), Some((1, 1)));
        assert_eq!(musl_version(b"musl libc"), None);
    }

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
