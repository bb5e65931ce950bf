//! What sources may say: only the command reads the environment, and only its reports print.

use std::path::{Path, PathBuf};

/// The rooms that read no environment.
const ROOMS: [&str; 12] = [
    "imagespec-core",
    "http",
    "bucket",
    "oci",
    "python",
    "debian",
    "conda",
    "sandbox",
    "builder-native",
    "builder-local",
    "builder-external",
    "examples/custom-builder/builder",
];

/// Ways to learn of the environment, the home directory or the working directory.
const READINGS: [&str; 10] = [
    "env::var(",
    "env::var_os(",
    "env::vars(",
    "env::vars_os(",
    "env::set_var(",
    "env::remove_var(",
    "env::home_dir(",
    "env::current_dir(",
    "env::set_current_dir(",
    "env::temp_dir(",
];

/// Where the lints on printing may be lifted.
const PRINTERS: [&str; 3] = ["cli/src/report/", "cli/src/fail.rs", "xtask/src/"];

/// All Rust sources below a folder, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The part of a source that is not tests, which stand at its end.
fn without_tests(source: &str) -> &str {
    source
        .find("#[cfg(test)]\nmod tests")
        .map_or(source, |tests| &source[..tests])
}

fn readings(source: &str) -> Vec<&'static str> {
    let code = without_tests(source);
    READINGS
        .into_iter()
        .filter(|reading| code.contains(reading))
        .collect()
}

#[test]
fn only_the_command_reads_the_environment() {
    let mut looked_at = 0;
    for room in ROOMS {
        for path in sources(&super::root().join(room).join("src")) {
            // A program is a command.
            let is_program = path
                .parent()
                .is_some_and(|folder| folder.ends_with("src/bin"));
            if path.ends_with("tests.rs") || is_program {
                continue;
            }
            looked_at += 1;
            let source = fs_err::read_to_string(&path).expect("a source");
            assert_eq!(readings(&source), [""; 0], "in {}", path.display());
        }
    }
    assert!(looked_at > 50, "only {looked_at} sources were looked at");
}

#[test]
fn a_reading_is_found_outside_tests_only() {
    let code = "fn home() { std::env::var(\"HOME\") }\n";
    assert_eq!(readings(code), ["env::var("]);
    assert_eq!(
        readings(&format!("#[cfg(test)]\nmod tests {{\n{code}}}")),
        [""; 0]
    );
}

#[test]
fn only_reports_print() {
    let root = super::root();
    let rooms = ROOMS.into_iter().chain(["cli", "xtask", "tests"]);
    for path in rooms.flat_map(|room| sources(&root.join(room).join("src"))) {
        let source = fs_err::read_to_string(&path).expect("a source");
        let relative = path.strip_prefix(&root).expect("a path of the workspace");
        let relative = relative.to_str().expect("a name in UTF-8");
        let lifted = ["clippy::print_std", "clippy::dbg_macro"]
            .iter()
            .any(|lint| source.contains(lint));
        let may = PRINTERS.iter().any(|printer| relative.starts_with(printer));
        assert!(!lifted || may, "{relative} lifts the lints on printing");
    }
}

/// What is temporary in a cache is known to `cache prune`, which removes what killed processes left of it.
#[test]
fn every_temporary_file_is_swept_by_prune() {
    let root = super::root();
    let swept = fs_err::read_to_string(root.join("oci/src/leftovers.rs")).expect("a source");
    let mut found = 0;
    for path in ROOMS
        .into_iter()
        .flat_map(|room| sources(&root.join(room).join("src")))
    {
        let source = fs_err::read_to_string(&path).expect("a source");
        let code = without_tests(&source);
        let named = [".prefix(\"", "const PREFIX: &str = \""];
        let written = named.iter().flat_map(|before| code.split(before).skip(1));
        for rest in written {
            let prefix = rest.split('"').next().unwrap_or_default();
            found += 1;
            assert!(
                swept.contains(&format!("\"{prefix}\"")),
                "`{prefix}` of {} is not in `oci/src/leftovers.rs`",
                path.display()
            );
        }
    }
    assert!(found > 10, "only {found} were found");
}
