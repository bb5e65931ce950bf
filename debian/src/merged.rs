//! Paths of the base: merged onto `/usr`, and slimmed as Debian's own container images are.

use std::borrow::Cow;

/// Folders of the root that are links onto `/usr`.
const MERGED: [&[u8]; 7] = [
    b"bin", b"lib", b"lib32", b"lib64", b"libo32", b"libx32", b"sbin",
];

/// What dpkg is told to leave out, so that it does so too when it installs into the image: dpkg.cfg(5).
pub(crate) const DPKG_CONFIGURATION: &str = "\
# Documentation, manual pages and translations are left out of this image.
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
";

/// The links of the root of an architecture, and what they point to.
pub(crate) fn links(architecture: &str) -> Vec<(&'static [u8], &'static [u8])> {
    let mut links: Vec<(&[u8], &[u8])> = vec![
        (b"bin", b"usr/bin"),
        (b"lib", b"usr/lib"),
        (b"sbin", b"usr/sbin"),
    ];
    if matches!(architecture, "amd64" | "ppc64el") {
        links.push((b"lib64", b"usr/lib64"));
    }
    links
}

/// Whether a path is one of the links.
pub(crate) fn is_link(path: &[u8]) -> bool {
    MERGED.contains(&path)
}

/// Where a package's path really is.
pub(crate) fn path(path: &[u8]) -> Cow<'_, [u8]> {
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    for (link, target) in [
        (&b"var/lock/"[..], &b"run/lock/"[..]),
        (b"var/run/", b"run/"),
    ] {
        if let Some(rest) = path.strip_prefix(link) {
            return Cow::Owned([target, rest].concat());
        }
    }
    if is_link(first) {
        Cow::Owned([b"usr/", path].concat())
    } else {
        Cow::Borrowed(path)
    }
}

/// Whether [`DPKG_CONFIGURATION`] leaves a path out, or the state has a link in its place.
pub(crate) fn is_excluded(path: &[u8]) -> bool {
    if matches!(path, b"var/run" | b"var/lock") {
        return true;
    }
    if let Some(rest) = path.strip_prefix(b"usr/share/doc/") {
        // The folder of a package's copyright file, or a link to that of another package.
        return rest.contains(&b'/') && !rest.ends_with(b"/copyright");
    }
    ["groff", "info", "linda", "lintian", "locale", "man"]
        .iter()
        .any(|folder| {
            path.strip_prefix(b"usr/share/")
                .and_then(|rest| rest.strip_prefix(folder.as_bytes()))
                .is_some_and(|rest| rest.starts_with(b"/"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_through_the_links() {
        assert_eq!(&*path(b"bin/sh"), b"usr/bin/sh");
        assert_eq!(&*path(b"lib"), b"usr/lib");
        assert_eq!(&*path(b"library/x"), b"library/x");
        assert_eq!(&*path(b"etc/lib/x"), b"etc/lib/x");
    }

    #[test]
    fn documentation_is_left_out_but_copyrights() {
        for (path, excluded) in [
            ("usr/share/doc/bash/copyright", false),
            ("usr/share/doc/bash", false),
            ("usr/share/doc/bash/README", true),
            ("usr/share/man/man1/ls.1.gz", true),
            ("usr/share/man", false),
            ("usr/share/manual/x", false),
        ] {
            assert_eq!(is_excluded(path.as_bytes()), excluded, "{path}");
        }
    }
}
