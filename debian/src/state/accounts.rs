//! Users and groups: base-passwd's tables, apt's user and the image's own.

use std::fmt::Write as _;

use imagespec_core::contract;

use super::tree::Tree;
use crate::error::DebianError;

/// Group of `/etc/shadow`, as Debian's base-passwd fixes it.
const SHADOW: u32 = 42;
/// Days since 1970 that passwords were last changed on: the contract's time, so that bytes repeat.
const CHANGED: i64 = contract::MTIME / 86_400;

/// The account files, from the text of base-passwd's `passwd.master` and `group.master`.
pub(super) fn write(tree: &mut Tree, users: &[u8], groups: &[u8]) -> Result<(), DebianError> {
    let text = |bytes| {
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text| text.starts_with("root:"))
            .ok_or_else(|| DebianError::Base("base-passwd has no tables".into()))
    };
    let (user, id, home, shell) = (
        contract::USER,
        contract::USER_ID,
        contract::USER_HOME,
        contract::USER_SHELL,
    );
    let mut lines: Vec<String> = text(users)?.lines().map(ToOwned::to_owned).collect();
    if !lines.iter().any(|line| line.starts_with("_apt:")) {
        // Until bookworm apt made its user itself, and got the first id there was.
        lines.push("_apt:*:100:65534::/nonexistent:/usr/sbin/nologin".into());
    }
    lines.push(format!("{user}:!:{id}:{id}::{home}:{shell}"));
    let (mut passwd, mut shadow) = (String::new(), String::new());
    for line in &lines {
        let mut fields: Vec<&str> = line.split(':').collect();
        let [name, password, ..] = fields[..] else {
            continue;
        };
        // Writing to a String cannot fail.
        let _ = writeln!(shadow, "{name}:{password}:{CHANGED}:0:99999:7:::");
        fields[1] = "x";
        let _ = writeln!(passwd, "{}", fields.join(":"));
    }
    let mut lines: Vec<String> = text(groups)?.lines().map(ToOwned::to_owned).collect();
    lines.push(format!("{user}:!:{id}:"));
    let (mut group, mut gshadow) = (String::new(), String::new());
    for line in &lines {
        let mut fields: Vec<&str> = line.split(':').collect();
        let [name, password, ..] = fields[..] else {
            continue;
        };
        let _ = writeln!(gshadow, "{name}:{password}::");
        fields[1] = "x";
        let _ = writeln!(group, "{}", fields.join(":"));
    }
    tree.file("etc/passwd", passwd);
    tree.file("etc/group", group);
    tree.file_with("etc/shadow", shadow, 0o640, SHADOW);
    tree.file_with("etc/gshadow", gshadow, 0o640, SHADOW);
    tree.file("etc/subuid", "");
    tree.file("etc/subgid", "");
    tree.directory(home.trim_start_matches('/'), 0o755, 0);
    Ok(())
}
