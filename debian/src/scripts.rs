//! Which packages need their maintainer scripts run, and which are complete without: their scripts do nothing
//! on a fresh system, or nothing that the layer of state has not done.

use std::path::PathBuf;

use crate::deb::Deb;
use crate::error::DebianError;
use crate::package::Package;

/// Packages of the base, whose scripts the declared tables of `state` stand in for.
const HANDLED: [&str; 5] = [
    "ca-certificates",
    "netbase",
    "media-types",
    "tzdata",
    "libc6",
];

/// Commands without effect in an image that is being made: byte-compilation (done for the image as a whole),
/// the loader's cache (the state has it), services (nothing runs), files of versions that were never there.
const IDLE: [&str; 9] = [
    "ldconfig",
    "py3compile",
    "pypy3compile",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "systemctl",
    "dpkg-maintscript-helper",
    "dpkg-trigger",
    "exit",
];

/// Words of a shell script that do nothing of themselves.
const WORDS: [&str; 7] = ["then", "else", "fi", "esac", "true", ":", ";;"];

/// The packages among `packages` whose scripts have to be run, in their order; `file` says where the file of
/// a package is. Blocking.
pub fn needing_scripts<'a>(
    packages: &'a [Package],
    file: &dyn Fn(&Package) -> PathBuf,
) -> Result<Vec<&'a Package>, DebianError> {
    let mut needing = Vec::new();
    for package in packages
        .iter()
        .filter(|package| !HANDLED.contains(&package.name.as_str()))
    {
        let control = Deb::open(&file(package), package)?.control()?;
        let matters = ["preinst", "postinst", "config"].iter().any(|name| {
            control
                .get(*name)
                .is_some_and(|(_, script)| !is_idle(&String::from_utf8_lossy(script)))
        });
        if matters {
            needing.push(package);
        }
    }
    Ok(needing)
}

/// Whether every line of a shell script is one of those that do nothing here. What is not understood matters.
fn is_idle(script: &str) -> bool {
    if !script.starts_with("#!/bin/sh") && !script.starts_with("#! /bin/sh") {
        return false;
    }
    let joined = script.replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .all(is_idle_line)
}

fn is_idle_line(line: &str) -> bool {
    let line = [
        "2>/dev/null",
        "2>&1",
        ">/dev/null",
        "> /dev/null",
        "|| true",
    ]
    .iter()
    .fold(line.to_owned(), |line, silence| line.replace(silence, ""));
    let line = line.trim();
    if line.contains(['`', '>', '<']) || line.contains("$(") {
        return false;
    }
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match first {
        "if" | "elif" => rest
            .strip_suffix("then")
            .and_then(|test| test.trim_end().strip_suffix(';'))
            .is_some_and(|test| test.split("&&").flat_map(|test| test.split("||")).all(asks)),
        "case" => rest.ends_with(" in") && is_single(rest),
        "set" => is_single(rest),
        _ if IDLE.contains(&first) => is_single(rest),
        _ if WORDS.contains(&first) => rest.is_empty(),
        // A pattern of `case`.
        _ => line.strip_suffix(')').is_some_and(|pattern| {
            let of_pattern = |byte: u8| byte.is_ascii_lowercase() || b"|-* ".contains(&byte);
            pattern.bytes().all(of_pattern)
        }),
    }
}

/// Whether a command only looks: a test, or whether a program is there.
fn asks(command: &str) -> bool {
    let command = command.trim().trim_start_matches("! ");
    let asking = [
        "[ ",
        "test ",
        "which ",
        "command -v ",
        "deb-systemd-helper ",
    ];
    asking.iter().any(|start| command.starts_with(start)) && is_single(command)
}

/// Whether nothing in a command starts another.
fn is_single(command: &str) -> bool {
    !command.contains([';', '&', '|', '{', '('])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_scripts_do_nothing() {
        assert!(is_idle(
            "#!/bin/sh\nset -e\n# Automatically added by dh_python3\nif which py3compile >/dev/null 2>&1; then\n\tpy3compile -p python3-x\nfi\n"
        ));
        assert!(is_idle(
            "#!/bin/sh\nset -e\ncase \"$1\" in\nconfigure|abort-upgrade)\nldconfig\n;;\nesac\nexit 0\n"
        ));
    }

    #[test]
    fn what_does_something_matters() {
        for line in [
            "update-alternatives --install /usr/bin/x x /usr/bin/y 1",
            "adduser --system x",
            "ldconfig; rm -rf /x",
            "ldconfig | sh",
            "py3compile $(rm x)",
            "set x > /etc/y",
            "if [ 1 ]; then rm -rf /x; fi",
            "true && rm x",
        ] {
            assert!(!is_idle(&format!("#!/bin/sh\n{line}\n")), "{line}");
        }
        assert!(!is_idle("#!/usr/bin/perl\n"));
    }
}
