//! Commands that look and tell, and those that write something to go on with.

use std::io::Read as _;
use std::process::Stdio;

use insta::assert_snapshot;

use crate::place::Place;

#[test]
fn help_is_data() {
    let place = Place::new(&[]);
    assert_snapshot!(place.run(&["-h"]), @"
    exit code: 0
    --- stdout
    Turn declarations of container images into images

    Usage: imagespec [OPTIONS] <COMMAND>

    Commands:
      build        Build what is missing and deliver it
      plan         Show what would be built
      tag          Print the names of images, tags included
      check        Validate, and compare with what the builder can do
      exec         Run a command in an image, building it first if it is missing
      run          Build the image of a task and run the task in it, or build all and run it on the
                   platform
      register     Build the images that code names, then register the code with the platform
      builders     List the builders and whether each works here
      doctor       Check what building needs, and say how to mend it
      images       List the images of the local store
      cache        Look at the caches, or make them smaller
      serve        Run a build service, for builder `union` of others
      token        Look after the tokens of a build service
      kaniko       Look after the cluster in which builder `kaniko` builds
      schema       Print the JSON Schema of imagespec.toml
      completions  Print a script that completes this command in a shell
      init         Write a first imagespec.toml

    Options:
      -C, --directory <DIR>  Work in this folder
      -h, --help             Print help (see more with '--help')
      -V, --version          Print version

    Exit codes: 0 done; 1 a build failed; 2 the input is wrong; 3 a builder or service cannot be reached
    or refuses; 4 nobody can tell whether the image exists; 130 interrupted.
    --- stderr
    ");
    let long = place.run(&["--help"]);
    for told in [
        "IMAGESPEC_CACHE_DIR",
        "FLYTE_PUSH_IMAGE_SPEC",
        "Exit codes: 0 done",
    ] {
        assert!(long.contains(told), "{long}");
    }
    assert!(
        place
            .run(&["--version"])
            .starts_with("exit code: 0\n--- stdout\nimagespec ")
    );
}

#[test]
fn every_flag_of_the_contract_is_there() {
    let told = Place::new(&[]).run(&["build", "--help"]);
    for flag in [
        "builder",
        "deployment",
        "registry",
        "platform",
        "output",
        "tag-scheme",
        "force",
        "pull",
        "dry-run",
        "locked",
        "compression",
        "bytecode",
        "no-bytecode",
        "tag",
        "label",
        "via",
        "directory",
        "jobs",
        "on-unknown",
        "progress",
        "json",
        "no-fallback",
        "option",
    ] {
        assert!(
            told.contains(&format!("--{flag}")),
            "--{flag} is missing: {told}"
        );
    }
}

#[test]
fn the_first_project_is_one() {
    let place = Place::new(&[]);
    assert_snapshot!(place.run(&["init", "--hello"]), @r"
    exit code: 0
    --- stdout
    wrote [PLACE]/project/imagespec.toml
    wrote [PLACE]/project/hello.py
    --- stderr
    ");
    assert_snapshot!(place.run(&["init"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: there is a file already: `[PLACE]/project/imagespec.toml`
    hint: edit it, or move it away
    ");
    assert_snapshot!(place.run(&["check"]), @r"
    exit code: 0
    --- stdout
    hello: fine
    --- stderr
    ");
}

#[test]
fn nothing_is_written_where_a_file_is_in_the_way() {
    let place = Place::new(&[("hello.py", "mine")]);
    assert_snapshot!(place.run(&["init", "--hello"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: there is a file already: `[PLACE]/project/hello.py`
    hint: edit it, or move it away
    ");
    assert!(!place.project().join("imagespec.toml").exists());
    assert_eq!(
        fs_err::read_to_string(place.project().join("hello.py")).expect("a file"),
        "mine"
    );
}

#[test]
fn schemas_know_every_field() {
    for arguments in [&["schema"][..], &["schema", "--spec"]] {
        let output = Place::new(&[])
            .command(arguments)
            .output()
            .expect("the command");
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let spec = schema.pointer("/$defs/ImageSpec").unwrap_or(&schema);
        for field in imagespec_core::spec::FIELDS {
            assert!(spec["properties"].get(field).is_some(), "{field}: {spec}");
        }
    }
}

#[test]
fn shells_are_told_what_there_is() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let told = Place::new(&[]).run(&["completions", shell]);
        assert!(
            told.starts_with("exit code: 0\n") && told.contains("on-unknown"),
            "{shell}"
        );
    }
}

#[test]
fn builders_are_compared() {
    let place = Place::new(&[]);
    let told = place.run(&["builders"]);
    assert!(told.contains("\ndefault  local, docker  no"), "{told}");
    assert!(told.contains("\nnative"), "{told}");
    let output = place
        .command(&["builders", "--json"])
        .output()
        .expect("the command");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["builders"][0]["name"], "default");
    assert_eq!(document["builders"][0]["fallback"], "native");
}

#[test]
fn an_empty_store_and_cache() {
    let place = Place::new(&[]);
    assert_snapshot!(place.run(&["images"]), @r"
    exit code: 0
    --- stdout
    REFERENCE  DIGEST  PLATFORMS  BUILDER  SIZE
    --- stderr
    ");
    assert_snapshot!(place.run(&["images", "--json"]), @r#"
    exit code: 0
    --- stdout
    {
      "images": []
    }
    --- stderr
    "#);
    assert_snapshot!(place.run(&["cache", "info"]), @r"
    exit code: 0
    --- stdout
    [PLACE]/home/.cache/imagespec
    PART  SIZE
    all   0 B
    --- stderr
    ");
    assert_snapshot!(place.run(&["cache", "prune"]), @r"
    exit code: 0
    --- stdout
    removed 0 blobs and 0 others, 0 B
    --- stderr
    ");
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let place = Place::new(&[]);
    let mut command = place.command(&["schema"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    drop(child.stdout.take());
    let mut errors = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut errors)
        .expect("UTF-8");
    assert_eq!(
        (child.wait().expect("an end").code(), errors.as_str()),
        (Some(0), "")
    );
}

#[test]
fn what_the_code_prints_is_in_the_docs() {
    let place = Place::new(&[]);
    for (command, file, written) in [
        (
            "reference",
            "docs/reference.md",
            include_str!("../../../docs/reference.md"),
        ),
        (
            "openapi",
            "docs/openapi.json",
            include_str!("../../../docs/openapi.json"),
        ),
    ] {
        let printed = place.command(&[command]).output().expect("the command");
        let printed = String::from_utf8(printed.stdout).expect("a text");
        assert!(
            printed == written,
            "{file} is not what the code says; `cargo xtask docs` writes it"
        );
    }
}
