//! Code, its images and the platform's own command: the real `pyflyte`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::flytekit::FLYTEKIT;
use crate::place::{Place, has};
use crate::registry::Served;

const EXAMPLE: &str = include_str!("../../../../examples/flyte/app.py");

const SEVERAL: &str = r#"
import os

from flytekit import ContainerTask, ImageSpec, dynamic, kwtypes, task, workflow

from parts.names import NAME

REGISTRY = os.environ["TEST_REGISTRY"]
base = ImageSpec(name="base", registry=REGISTRY, env={"BASE": "1"})
child = ImageSpec(name=NAME, registry=REGISTRY, base_image=base, packages=["six"])
unplaced = ImageSpec(name="unplaced", env={"UNPLACED": "1"})


@task(container_image=child)
def of_child() -> str:
    return "child"


@dynamic(container_image=base)
def of_base() -> str:
    return of_child()


@task(container_image=unplaced)
def of_unplaced() -> str:
    return "unplaced"


container = ContainerTask(name="container", image=base, command=["true"], inputs=kwtypes(n=int))


@workflow
def flow() -> str:
    return of_child()
"#;

/// An environment with the real flytekit. It is made once.
pub(super) fn environment() -> &'static Path {
    static ENVIRONMENT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = || {
        let folder = tempfile::tempdir().expect("a folder");
        let uv = |arguments: &[&str]| {
            let ran = Command::new("uv")
                .args(arguments)
                .arg("--quiet")
                .current_dir(folder.path())
                .status();
            assert!(ran.expect("uv").success(), "{arguments:?}");
        };
        uv(&["venv", "env"]);
        uv(&[
            "pip",
            "install",
            "--python",
            "env/bin/python",
            FLYTEKIT,
            "setuptools<81",
        ]);
        folder
    };
    ENVIRONMENT.get_or_init(made).path()
}

/// A project in which `pyflyte` is on PATH.
fn place(declaration: &str) -> Place {
    let mut place = Place::new(declaration);
    let path = std::env::var("PATH").expect("a path");
    let bin = environment().join("env/bin");
    place.set("PATH", &format!("{}:{path}", bin.display()));
    place.set("IMAGESPEC_BUILDER", "native");
    // Nothing may be assumed to exist.
    place.set("FLYTE_IMG_FAST_FAIL", "true");
    place
}

#[test]
fn the_first_example_works_both_ways_and_runs_in_its_image() {
    if !has("uv") {
        return;
    }
    let place = place("");
    let locked = EXAMPLE.replace("requirements.txt", "uv.lock");
    let of_service = locked.replace("ImageSpec(name", "ImageSpec(builder=\"union\", name");
    assert!(of_service.contains("union") && of_service.contains("uv.lock"));
    place.write("app.py", &of_service);
    place.write(
        "pyproject.toml",
        "[project]\nname = \"hello\"\nversion = \"1\"\nrequires-python = \">=3.11,<3.12\"\ndependencies = [\"flytekit\", \"setuptools<81\"]\n",
    );
    let locked = Command::new("uv")
        .args(["lock", "--quiet"])
        .current_dir(place.path("project"))
        .status();
    assert!(locked.expect("uv").success());

    let native = ["--builder", "native", "--progress", "plain"];
    let by_python = place.says(&[&["build", "app.py", "--via", "python"], &native[..]].concat());
    let by_reading = place.says(&[&["build", "app.py"], &native[..]].concat());
    assert!(
        by_python.starts_with("say-hello-image:") && by_python.contains("@sha256:"),
        "{by_python}"
    );
    assert_eq!(by_python, by_reading);

    let said = place.says(
        &[
            &["run"],
            &native[..],
            &["app.py", "say_hello", "--name", "you"],
        ]
        .concat(),
    );
    assert!(said.contains("Hello, you!"), "{said}");
    let said = place.says(&[&["run"], &native[..], &["app.py", "hello_world_wf"]].concat());
    assert!(said.contains("Hello, world!"), "{said}");
    let (code, told) = place.fails(
        &[
            &["run"],
            &native[..],
            &["app.py", "say_hello", "--nome", "x"],
        ]
        .concat(),
    );
    assert!(
        code.is_some_and(|code| code != 0) && told.contains("--nome"),
        "{code:?} {told}"
    );
}

#[test]
fn the_example_runs_in_its_image() {
    if !has("uv") {
        return;
    }
    let place = place("");
    for (name, text) in [
        ("app.py", EXAMPLE),
        (
            "requirements.txt",
            include_str!("../../../../examples/flyte/requirements.txt"),
        ),
    ] {
        place.write(name, text);
    }
    let said = place.says(&[
        "run",
        "--progress",
        "plain",
        "app.py",
        "hello_world_wf",
        "--name",
        "you",
    ]);
    assert!(said.contains("Hello, you!"), "{said}");
    let version = place.says(&[
        "exec",
        "app.py:say_hello",
        "--",
        "python",
        "-c",
        "import cowsay, flytekit; print(flytekit.__version__)",
    ]);
    // That of the user's environment.
    assert_eq!(version, FLYTEKIT.replace("flytekit==", ""));
}

/// Turns `register ARGUMENTS FILE` into `package`, which needs no cluster.
fn package(place: &Place) -> PathBuf {
    let script = place.path("platform");
    let text = "#!/bin/sh\nshift\nset -e\nfor file; do :; done\nset -- \"$@\" --\n\
                while [ \"$2\" != -- ]; do set -- \"$@\" \"$1\"; shift; done\nshift 2\n\
                exec pyflyte --pkgs several package --fast --force --output out.tgz \"$@\"\n";
    fs_err::write(&script, text).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&script, mode).expect("a mode");
    script
}

/// All that a package holds, as text.
fn packaged(place: &Place) -> String {
    let file = fs_err::File::open(place.path("project/out.tgz")).expect("a package");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut text = String::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("bytes");
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

#[test]
fn what_is_registered_names_our_images_and_nothing_else_is_built() {
    if !has("uv") || !has("docker-registry") {
        return;
    }
    let served = Served::new(&[]);
    let deployment = "[deployments.cluster]\nregistry = \"REGISTRY/team\"\npull_registry = \"registry.cluster:5000/team\"\n";
    let mut place = place(&deployment.replace("REGISTRY", &served.address));
    place.set("TEST_REGISTRY", &format!("{}/code", served.address));
    place.set("IMAGESPEC_DEPLOYMENT", "cluster");
    place.write("several.py", SEVERAL);
    place.write("parts/__init__.py", "");
    place.write("parts/names.py", "NAME = 'child'\n");
    let tags = place.says(&["tag", "several.py"]);
    assert_eq!(place.says(&["tag", "several.py", "--via", "python"]), tags);
    let lines: Vec<_> = tags.lines().collect();
    let [base, child, unplaced] = lines.as_slice() else {
        panic!("{tags}");
    };

    let script = package(&place);
    let platform = script.to_str().expect("a path");
    place.says(&[
        "register",
        "--progress",
        "plain",
        "--platform-command",
        platform,
        "several.py",
    ]);
    let text = packaged(&place);
    for name in [base, child] {
        assert!(text.contains(name), "{name}");
        let (repository, tag) = name
            .split_once('/')
            .and_then(|(_, name)| name.split_once(':'))
            .expect("a name");
        assert!(served.has(repository, tag), "{name}");
    }
    // Where the cluster finds it.
    let pulled = unplaced.replace(
        &format!("{}/team", served.address),
        "registry.cluster:5000/team",
    );
    assert!(text.contains(&pulled), "{pulled}");

    // The platform's own registration, up to where it would need a cluster: what holds the code itself.
    let flags = [
        "register",
        "--progress",
        "plain",
        "--via",
        "python",
        "several.py",
    ];
    let said = place.says(
        &[
            &flags[..],
            &["--", "--copy", "none", "--version", "v1", "--dry-run"],
        ]
        .concat(),
    );
    assert!(said.contains("Successfully registered"), "{said}");
    let of_code = said
        .split(['\'', '"'])
        .filter(|word| word.contains("/code/child"));
    assert!(of_code.count() > 0, "{said}");
}

#[test]
fn an_exception_of_the_code_is_the_users_own() {
    if !has("uv") {
        return;
    }
    let place = place("");
    place.write(
        "helpers.py",
        "def parse(settings):\n    return settings[\"registry\"]\n",
    );
    place.write(
        "app.py",
        "from helpers import parse\nprint(\"noise\")\nREGISTRY = parse({})\n",
    );
    let (code, told) = place.fails(&["tag", "app.py", "--via", "python"]);
    assert_eq!(code, Some(2), "{told}");
    let folder = place.path("project").canonicalize().expect("a path");
    let file = |name: &str| format!("File \"{}\"", folder.join(name).display());
    assert!(
        told.contains(&file("app.py")) && told.contains(&file("helpers.py")),
        "{told}"
    );
    assert!(told.contains("KeyError: 'registry'"), "{told}");
    assert_eq!(told.matches("File \"").count(), 2, "{told}");
}
