//! The binary of three lines knows the third party's builder.

use std::path::Path;
use std::process::{Command, Output};

use imagespec_testkit::linked::unlinked;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_acme-imagespec"))
        .args(arguments)
        .current_dir(folder)
        .env("IMAGESPEC_CACHE_DIR", folder.join("cache"))
        .env_remove("IMAGESPEC_BUILDER")
        .env_remove("IMAGESPEC_DEPLOYMENT")
        .env_remove("IMAGESPEC_REGISTRY")
        .output()
        .expect("the command runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the command runs")
}

#[test]
fn lists_every_builder_its_manifest_names() {
    let folder = tempfile::tempdir().expect("the command runs");
    let output = run(folder.path(), &["builders"]);
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for builder in ["default", "native", "noop"] {
        assert!(listed.contains(&builder), "{text}");
    }
    let missing =
        unlinked(Path::new(env!("CARGO_MANIFEST_DIR")), &listed).expect("the command runs");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn builds_with_it() {
    let folder = tempfile::tempdir().expect("the command runs");
    let reference = "registry.example/team/base:2026";
    let spec = format!("[images.app]\nbuilder = \"noop\"\nbase_image = \"{reference}\"\n");
    fs_err::write(folder.path().join("imagespec.toml"), spec).expect("the command runs");
    let output = run(folder.path(), &["build"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output).trim_end(), reference);
}

#[test]
fn refuses_what_the_builder_cannot_do() {
    let folder = tempfile::tempdir().expect("the command runs");
    let spec = "[images.app]\nbuilder = \"noop\"\nbase_image = \"registry.example/base\"\ncommands = [\"true\"]\n";
    fs_err::write(folder.path().join("imagespec.toml"), spec).expect("the command runs");
    let output = run(folder.path(), &["build"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let talk = String::from_utf8(output.stderr.clone()).expect("the command runs");
    assert!(talk.contains("`commands`"), "{talk}");
}
