//! The alternatives of a base: update-alternatives(1), and its database as `update-alternatives.c` writes it.

use std::fmt::Write as _;

use super::facts::Facts;
use super::tree::Tree;

/// A choice that a package of the base registers.
struct Alternative {
    name: &'static str,
    link: &'static str,
    path: &'static str,
    priority: u32,
    /// Name, link and path of what follows the choice.
    followers: &'static [(&'static str, &'static str, &'static str)],
}

const TABLE: [Alternative; 4] = [
    Alternative {
        name: "awk",
        link: "/usr/bin/awk",
        path: "/usr/bin/mawk",
        priority: 5,
        followers: &[("nawk", "/usr/bin/nawk", "/usr/bin/mawk")],
    },
    Alternative {
        name: "pager",
        link: "/usr/bin/pager",
        path: "/bin/more",
        priority: 50,
        followers: &[],
    },
    Alternative {
        name: "rmt",
        link: "/usr/sbin/rmt",
        path: "/usr/sbin/rmt-tar",
        priority: 50,
        followers: &[],
    },
    Alternative {
        name: "which",
        link: "/usr/bin/which",
        path: "/usr/bin/which.debianutils",
        priority: 0,
        followers: &[],
    },
];

/// Adds the alternatives whose programs the packages have.
pub(super) fn write(tree: &mut Tree, packages: &[Facts]) {
    for alternative in &TABLE {
        let path = alternative.path.trim_start_matches('/');
        let there = |path: &str| packages.iter().any(|facts| facts.has(path));
        let merged = crate::merged::path(path.as_bytes());
        if !there(&String::from_utf8_lossy(&merged)) {
            continue;
        }
        let mut record = format!("auto\n{}\n", alternative.link);
        let mut links = vec![(alternative.name, alternative.link, alternative.path)];
        links.extend(alternative.followers);
        for (name, link, path) in &links {
            tree.symlink(
                link.trim_start_matches('/'),
                format!("/etc/alternatives/{name}"),
            );
            tree.symlink(format!("etc/alternatives/{name}"), *path);
        }
        // Writing to a String cannot fail.
        for (name, link, _) in alternative.followers {
            let _ = writeln!(record, "{name}\n{link}");
        }
        let _ = writeln!(record, "\n{}\n{}", alternative.path, alternative.priority);
        for (_, _, path) in alternative.followers {
            let _ = writeln!(record, "{path}");
        }
        record.push('\n');
        tree.file(
            format!("var/lib/dpkg/alternatives/{}", alternative.name),
            record,
        );
    }
}
