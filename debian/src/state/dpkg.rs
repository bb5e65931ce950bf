//! The database of dpkg, as dpkg itself would have left it: `dpkg(1)`, "FILES", and its `doc/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::facts::Facts;
use super::tree::Tree;

const FOLDER: &str = "var/lib/dpkg";

/// Adds the database of `packages`, sorted by name.
pub(super) fn write(tree: &mut Tree, packages: &[Facts], architecture: &str) {
    let mut status = String::new();
    for facts in packages {
        status.push_str(&paragraph(facts));
        info(tree, facts);
    }
    tree.file(format!("{FOLDER}/status"), status.clone());
    tree.file(format!("{FOLDER}/available"), "");
    tree.file(format!("{FOLDER}/diversions"), diversions(packages));
    tree.file(format!("{FOLDER}/statoverride"), "");
    tree.file(format!("{FOLDER}/info/format"), "1\n");
    // Later versions of dpkg record which architecture they were made for.
    tree.file(format!("{FOLDER}/arch-native"), format!("{architecture}\n"));
    for folder in ["alternatives", "parts", "updates", "triggers"] {
        tree.directory(format!("{FOLDER}/{folder}"), 0o755, 0);
    }
    triggers(tree, packages);
}

/// The name of a package's files: those of which several architectures may be there carry theirs.
fn prefix(facts: &Facts) -> String {
    match facts.paragraph.get("Multi-Arch") {
        Some("same") => format!("{}:{}", facts.package.name, facts.package.architecture),
        _ => facts.package.name.clone(),
    }
}

fn paragraph(facts: &Facts) -> String {
    let mut text = String::new();
    for line in facts.control.lines().filter(|line| !line.trim().is_empty()) {
        text.push_str(line);
        text.push('\n');
        if line.starts_with("Package:") {
            text.push_str("Status: install ok installed\n");
        }
    }
    let paths = facts
        .lines("conffiles")
        .filter(|line| line.starts_with('/'));
    let mut conffiles = String::new();
    for path in paths {
        let md5 = facts.conffiles.get(path.trim_start_matches('/'));
        // Writing to a String cannot fail.
        let _ = writeln!(
            conffiles,
            " {path} {}",
            md5.map_or("newconffile", String::as_str)
        );
    }
    if !conffiles.is_empty() {
        text.push_str("Conffiles:\n");
        text.push_str(&conffiles);
    }
    text.push('\n');
    text
}

fn info(tree: &mut Tree, facts: &Facts) {
    let prefix = prefix(facts);
    let mut list = String::new();
    for path in &facts.list {
        // Writing to a String cannot fail.
        let _ = writeln!(list, "/{}", if path.is_empty() { "." } else { path });
    }
    tree.file(format!("{FOLDER}/info/{prefix}.list"), list);
    for (name, (mode, content)) in &facts.files {
        let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        tree.file_with(
            format!("{FOLDER}/info/{prefix}.{name}"),
            content.clone(),
            mode,
            0,
        );
    }
}

/// The one diversion a base has: until dash owned `/bin/sh`, its script claimed it.
fn diversions(packages: &[Facts]) -> String {
    let claims = packages.iter().any(|facts| {
        let script = facts
            .files
            .get("postinst")
            .map(|(_, script)| script.as_slice());
        facts.package.name == "dash"
            && String::from_utf8_lossy(script.unwrap_or_default())
                .contains("dpkg-divert --package dash")
    });
    if !claims {
        return String::new();
    }
    "/bin/sh\n/bin/sh.distrib\ndash\n\
     /usr/share/man/man1/sh.1.gz\n/usr/share/man/man1/sh.distrib.1.gz\ndash\n"
        .to_owned()
}

/// Which packages want to know of which files and events: deb-triggers(5), dpkg's `triggers/`.
fn triggers(tree: &mut Tree, packages: &[Facts]) {
    let mut files = String::new();
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for facts in packages {
        for line in facts.lines("triggers") {
            let Some((directive, trigger)) = line.split_once(char::is_whitespace) else {
                continue;
            };
            let awaited = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => continue,
            };
            let (trigger, name) = (trigger.trim(), prefix(facts));
            // Writing to a String cannot fail.
            let _ = if trigger.starts_with('/') {
                writeln!(files, "{trigger} {name}{awaited}")
            } else {
                writeln!(
                    named.entry(trigger.to_owned()).or_default(),
                    "{name}{awaited}"
                )
            };
        }
    }
    tree.file(format!("{FOLDER}/triggers/File"), files);
    tree.file(format!("{FOLDER}/triggers/Unincorp"), "");
    for (trigger, names) in named
        .into_iter()
        .filter(|(trigger, _)| !trigger.contains('/'))
    {
        tree.file(format!("{FOLDER}/triggers/{trigger}"), names);
    }
}
