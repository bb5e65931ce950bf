//! flytekit's plugin: the wheel with the command in it, its own tests, and what linters say of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::flytekit::FLYTEKIT;
use crate::place::{Place, has, told};
use crate::registry::Served;

const RUFF: &str = "ruff==0.15.7";
const MYPY: &str = "mypy==1.20.0";

fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../flytekit-plugin")
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("a program");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {printed}\n{}",
        told(&output)
    );
}

#[test]
fn the_plugin_builds_skips_forces_and_fails_as_flytekit_asks() {
    if !has("uv") || !has("docker-registry") || !has("strip") {
        return;
    }
    let served = Served::new(&[]);
    let place = Place::new("");
    let binary = place.path("imagespec");
    succeeds(
        Command::new("strip")
            .arg("-o")
            .arg(&binary)
            .arg(env!("CARGO_BIN_EXE_imagespec")),
    );
    let wheels = place.path("wheels");
    // Of a copy: building leaves files.
    succeeds(
        Command::new("cp")
            .arg("-r")
            .arg(plugin())
            .arg(place.path("plugin")),
    );
    succeeds(
        Command::new("uv")
            .args(["build", "--wheel", "--quiet", "--out-dir"])
            .arg(&wheels)
            .current_dir(place.path("plugin"))
            .env("IMAGESPEC_BINARY", &binary),
    );
    let wheel = fs_err::read_dir(&wheels)
        .expect("wheels")
        .flatten()
        .map(|entry| entry.path());
    let wheel = wheel
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let tests = place.path("plugin/tests");
    succeeds(
        Command::new("uv")
            .args(["run", "--quiet", "--no-project", "--isolated", "--with"])
            .arg(wheel.expect("a wheel"))
            .args([
                "--with",
                FLYTEKIT,
                "--with",
                "setuptools<81",
                "--with",
                "pytest",
                "pytest",
                "-p",
                "no:cacheprovider",
                "-q",
            ])
            .arg(tests)
            .current_dir(place.path("project"))
            .env("IMAGESPEC_CACHE_DIR", place.cache())
            .env("IMAGESPEC_BUILDER", "native")
            .env("IMAGESPEC_TEST_REGISTRY", &served.address),
    );
}

#[test]
fn the_plugin_is_typed_and_tidy() {
    if !has("uv") {
        return;
    }
    let place = Place::new("");
    succeeds(
        Command::new("cp")
            .arg("-r")
            .arg(plugin())
            .arg(place.path("plugin")),
    );
    let folder = place.path("plugin");
    let tool = |arguments: &[&str]| {
        succeeds(
            Command::new("uvx")
                .args(["--quiet"])
                .args(arguments)
                .current_dir(&folder),
        );
    };
    tool(&["--from", RUFF, "ruff", "check", "."]);
    tool(&["--from", RUFF, "ruff", "format", "--check", "."]);
    tool(&["--from", MYPY, "--with", FLYTEKIT, "mypy"]);
}
