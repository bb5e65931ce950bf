//! What no tracked file may name: the host of a public package registry, or a place on one machine. Indexes,
//! mirrors and keyrings come from the machine's configuration.

use std::process::Command;

/// What is looked for, in pieces, so that this file does not name it.
fn forbidden() -> Vec<String> {
    let hosts = [
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("deb.", "debian.org"),
        ("security.", "debian.org"),
        ("snapshot.", "debian.org"),
        ("archive.", "ubuntu.com"),
        ("static.", "crates.io"),
        ("index.", "crates.io"),
        ("proxy.", "golang.org"),
        ("sum.", "golang.org"),
        ("registry.", "npmjs.org"),
        ("conda.", "anaconda.org"),
    ];
    let places = [
        ("/wo", "rk/main"),
        ("/wo", "rk/shared"),
        ("/root/.", "cargo"),
    ];
    hosts
        .into_iter()
        .chain(places)
        .map(|(first, second)| format!("{first}{second}"))
        .collect()
}

/// The lines of a text that name what they must not.
fn named(text: &str) -> Vec<&str> {
    let forbidden = forbidden();
    text.lines()
        .filter(|line| forbidden.iter().any(|name| line.contains(name)))
        .collect()
}

#[test]
fn no_file_names_a_package_registry_or_a_machine() {
    let listing = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(super::root())
        .output();
    let Some(listing) = listing.ok().filter(|output| output.status.success()) else {
        // An unpacked release has no list of tracked files, and was looked at before it was made.
        return;
    };
    let listing = String::from_utf8(listing.stdout).expect("names in UTF-8");
    let files: Vec<_> = listing
        .split_terminator('\0')
        .filter(|name| *name != "Cargo.lock")
        .collect();
    assert!(files.len() > 50, "only {} files are tracked", files.len());
    for file in files {
        // A file that was removed and not yet committed is listed still.
        let Ok(content) = fs_err::read(super::root().join(file)) else {
            continue;
        };
        let content = String::from_utf8_lossy(&content);
        assert_eq!(named(&content), [""; 0], "in {file}");
    }
}

#[test]
fn a_name_is_found() {
    for name in forbidden() {
        let text = format!("fine\nindex = \"https://{name}/simple\"\n");
        assert_eq!(named(&text).len(), 1, "{name}");
    }
    assert_eq!(named("index = \"https://index.example/simple\""), [""; 0]);
}
