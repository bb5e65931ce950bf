//! What remains of the maintainer scripts of a base: files copied to their place, folders, links.

use std::collections::BTreeMap;

use super::tree::Tree;
use crate::merged;

/// Groups that Debian's base-passwd fixes.
const MAIL: u32 = 8;
const UTMP: u32 = 43;

/// What PAM does where `pam-auth-update` was not asked otherwise: block, and what stands in for it.
const PAM: [(&str, &str); 9] = [
    (
        "$account_primary",
        "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so ",
    ),
    ("$account_additional", ""),
    (
        "$auth_primary",
        "auth\t[success=1 default=ignore]\tpam_unix.so nullok",
    ),
    ("$auth_additional", ""),
    (
        "$password_primary",
        "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt",
    ),
    ("$password_additional", ""),
    (
        "$session_primary",
        "session\t[default=1]\t\t\tpam_permit.so",
    ),
    (
        "$session_nonlogin_primary",
        "session\t[default=1]\t\t\tpam_permit.so",
    ),
    ("$session_additional", "session\trequired\tpam_unix.so "),
];

/// Files that are copied where nothing else has put one: from, to.
const COPIED: [(&str, &str); 6] = [
    ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
    ("usr/share/base-files/dot.profile", "root/.profile"),
    ("usr/share/base-files/profile", "etc/profile"),
    ("usr/share/base-files/motd", "etc/motd"),
    ("usr/share/base-files/nsswitch.conf", "etc/nsswitch.conf"),
    ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
];

/// Adds them. `kept` has the packages' own defaults by path; `has` says whether a path is in a package.
pub(super) fn write(tree: &mut Tree, kept: &BTreeMap<&str, &[u8]>, has: &dyn Fn(&str) -> bool) {
    for (from, to) in COPIED {
        match kept.get(from) {
            Some(content) if to.starts_with("root/") => tree.user_file(to, *content),
            Some(content) => tree.file(to, *content),
            None => {}
        }
    }
    folders(tree);
    logs(tree);
    pam(tree, kept);
    shells(tree, kept);
    if has("etc/dpkg/origins/debian") && !has("etc/dpkg/origins/default") {
        tree.symlink("etc/dpkg/origins/default", "debian");
    }
    if has("usr/share/zoneinfo/Etc/UTC") {
        tree.symlink("etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
        tree.file("etc/timezone", "Etc/UTC\n");
    }
    if has("usr/bin/py3versions") {
        tree.file(
            "etc/python3/debian_config",
            "[DEFAULT]\nbyte-compile = standard\n",
        );
    }
    tree.file("etc/dpkg/dpkg.cfg.d/imagespec", merged::DPKG_CONFIGURATION);
    tree.file(
        "etc/apt/apt.conf.d/imagespec",
        "# Images are built once: package files and translated descriptions are not kept.\n\
         APT::Keep-Downloaded-Packages \"false\";\n\
         Acquire::Languages \"none\";\n",
    );
    tree.file("etc/environment", "");
    tree.file("etc/machine-id", "");
}

fn folders(tree: &mut Tree) {
    for path in [
        "mnt", "srv", "opt", "etc/opt", "var/opt", "media", "dev", "proc", "sys",
    ] {
        tree.directory(path, 0o755, 0);
    }
    for path in [
        "",
        "/share",
        "/share/man",
        "/bin",
        "/games",
        "/lib",
        "/include",
        "/sbin",
        "/src",
        "/etc",
    ] {
        tree.directory(format!("usr/local{path}"), 0o755, 0);
    }
    // Packages whose scripts register alternatives of manual pages fail without these.
    for section in 1..=8 {
        tree.directory(format!("usr/share/man/man{section}"), 0o755, 0);
    }
    tree.symlink("usr/local/man", "share/man");
    tree.directory("var/mail", 0o2775, MAIL);
    tree.symlink("var/spool/mail", "../mail");
    tree.directory("run", 0o755, 0);
    tree.directory("run/lock", 0o1777, 0);
    tree.symlink("var/run", "/run");
    tree.symlink("var/lock", "/run/lock");
    tree.directory("tmp", 0o1777, 0);
    tree.directory("var/tmp", 0o1777, 0);
    tree.directory("root", 0o755, 0);
}

fn logs(tree: &mut Tree) {
    tree.file_with("var/log/wtmp", "", 0o664, UTMP);
    tree.file_with("var/log/btmp", "", 0o660, UTMP);
    tree.file_with("var/log/lastlog", "", 0o664, UTMP);
    tree.file("var/log/faillog", "");
}

fn pam(tree: &mut Tree, kept: &BTreeMap<&str, &[u8]>) {
    let templates = kept
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix("usr/share/pam/")?, text)))
        .filter(|(name, _)| name.starts_with("common-") && !name.contains('.'));
    for (name, text) in templates {
        let text = String::from_utf8_lossy(text);
        let lines: Vec<&str> = text
            .lines()
            .map(|line| {
                PAM.iter()
                    .find(|(block, _)| *block == line.trim())
                    .map_or(line, |(_, with)| with)
            })
            .collect();
        tree.file(format!("etc/pam.d/{name}"), lines.join("\n") + "\n");
    }
}

fn shells(tree: &mut Tree, kept: &BTreeMap<&str, &[u8]>) {
    let mut text = "# /etc/shells: valid login shells\n".to_owned();
    let mut state = String::new();
    let lists = kept
        .iter()
        .filter(|(path, _)| path.starts_with("usr/share/debianutils/shells"));
    for (_, list) in lists {
        let list = String::from_utf8_lossy(list).into_owned();
        for shell in list.lines().filter(|line| line.starts_with('/')) {
            for path in [shell.to_owned(), format!("/usr{shell}")] {
                if path.starts_with("/usr/usr/") || text.lines().any(|line| line == path) {
                    continue;
                }
                text.push_str(&path);
                text.push('\n');
                state.push_str(&path);
                state.push('\n');
            }
        }
    }
    tree.file("etc/shells", text);
    tree.file("var/lib/shells.state", state);
}
