//! Logins in URLs of package indexes reach the index and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::docker::HOST;
use crate::engine::{Engine, with_every_engine};
use crate::place::{Place, Running, has};

const LOGIN: &str = "reader:Tr0ub4dor-and-3";
const PASSWORD: &str = "Tr0ub4dor-and-3";
/// `LOGIN` as a header says it.
const ENCODED: &str = "cmVhZGVyOlRyMHViNGRvci1hbmQtMw";

/// A script of the tests.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/delivering")
        .join(name)
}

/// A server of the tests, told its folder, the login it wants and more, and its port.
pub(crate) fn serve(name: &str, folder: &Path, login: &str, more: &[&str]) -> (Running, u16) {
    let mut server = Command::new("python3");
    server.arg(script(name)).arg(folder).arg(login).args(more);
    let (server, port) = Running::telling(&mut server);
    (server, port.parse().expect("a port"))
}

/// Puts a uv first on the path that writes down how it was called.
fn watch_uv(place: &mut Place) {
    place.says(&["build", "uv", "--no-bytecode"]);
    let tools = fs_err::read_dir(place.cache().join("tools"));
    let cached = tools
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.is_file());
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("uv"))
            .find(|path| path.is_file())
    };
    let real = cached.or_else(on_path).expect("uv");
    let watched = place.path("bin/uv");
    fs_err::create_dir_all(place.path("bin")).expect("a folder");
    let text = format!(
        "#!/bin/sh\ntr '\\0' ' ' < /proc/$$/cmdline >> '{}'\nexec '{}' \"$@\"\n",
        place.path("argv").display(),
        real.display()
    );
    fs_err::write(&watched, text).expect("a script");
    fs_err::set_permissions(&watched, PermissionsExt::from_mode(0o755)).expect("a mode");
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", place.path("bin").display());
    place.set("PATH", &path);
}

/// Files below the folders that hold one of the words.
pub(crate) fn holding(folders: &[&Path], words: &[&str]) -> String {
    let output = Command::new("python3")
        .arg(script("search.py"))
        .args(folders)
        .arg("--")
        .args(words)
        .output()
        .expect("a search");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("paths")
}

/// A project whose packages are behind a login that stands in every place where it may.
fn guarded(port: u16) -> Place {
    let at = format!("http://{LOGIN}@127.0.0.1:{port}");
    let mut place = Place::new(&format!(
        r#"
[images.uv]
packages = ["six"]
[images.field]
packages = ["guarded-one"]
pip_index = "{at}/simple"
[images.links]
packages = ["guarded-two", "guarded-four @ {at}/files/guarded_four-1.0-py3-none-any.whl"]
pip_extra_args = "--find-links '{at}/simple/guarded-two/'"
[images.file]
requirements = "requirements.txt"
[images.project]
requirements = "p/pyproject.toml"
[images.variable]
packages = ["guarded-three"]
pip_extra_index_url = ["http://reader:${{INDEX_WORD}}@127.0.0.1:{port}/simple"]
"#
    ));
    place.write(
        "requirements.txt",
        &format!("--extra-index-url {at}/simple\n-r more.txt\nguarded-one\n"),
    );
    place.write(
        "more.txt",
        &format!("guarded-two @ {at}/files/guarded_two-1.0-py3-none-any.whl\n"),
    );
    place.write(
        "p/pyproject.toml",
        &format!(
            "[project]\nname = \"p\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"guarded-one\"]\n\
             [[tool.uv.index]]\nurl = \"{at}/simple\"\n"
        ),
    );
    place.set("INDEX_WORD", PASSWORD);
    place
}

with_every_engine!(an_engine_is_lent_a_login_and_keeps_nothing_of_it);

fn an_engine_is_lent_a_login_and_keeps_nothing_of_it(engine: &Engine) {
    if !has("python3") {
        return;
    }
    let served = tempfile::tempdir().expect("a folder");
    let (_server, port) = serve("server.py", served.path(), LOGIN, &[]);
    let mut place = guarded(port);
    place.set("DOCKER_HOST", &engine.address());
    for image in ["field", "links", "file", "project", "variable"] {
        let arguments = ["build", image, "--builder", "default", "--progress", "json"];
        let output = place.run(&[&arguments[..], &HOST].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let name = String::from_utf8(output.stdout).expect("a name");
        let name = name.trim();
        for arguments in [&["history", "--no-trunc", name][..], &["save", name]] {
            let output = engine.client().args(arguments).output().expect("docker");
            assert!(output.status.success(), "{output:?}");
            for word in [PASSWORD, ENCODED] {
                let found = memchr::memmem::find(&output.stdout, word.as_bytes());
                assert_eq!(found, None, "{image}: {arguments:?}");
                assert!(!told.contains(word), "{told}");
            }
        }
    }
}

#[test]
fn a_login_in_a_url_is_used_and_kept_nowhere() {
    if !has("python3") {
        return;
    }
    let served = tempfile::tempdir().expect("a folder");
    let (_server, port) = serve("server.py", served.path(), LOGIN, &[]);
    let mut place = guarded(port);
    watch_uv(&mut place);
    let mut told = String::new();
    for image in ["field", "links", "file", "project", "variable"] {
        let layout = place.path(&format!("layouts/{image}"));
        let output = format!("oci:{}", layout.display());
        for arguments in [
            &["plan", image, "--format", "json"][..],
            &[
                "build",
                image,
                "--no-bytecode",
                "--progress",
                "json",
                "--json",
            ],
            &["build", image, "--no-bytecode", "--output", &output],
        ] {
            let output = place.run(arguments);
            told.push_str(&String::from_utf8_lossy(&output.stdout));
            told.push_str(&String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{told}");
        }
    }
    let look = "import guarded_one, guarded_two; print('imported')";
    let run = [
        "exec",
        "file",
        "--progress",
        "quiet",
        "--",
        "python",
        "-c",
        look,
    ];
    assert_eq!(place.says(&run), "imported");
    assert!(
        !told.contains(PASSWORD) && !told.contains(ENCODED),
        "{told}"
    );
    let argv = fs_err::read_to_string(place.path("argv")).expect("how uv was called");
    assert!(argv.contains("compile") && argv.contains("--find-links=http://127.0.0.1"));
    assert!(!argv.contains(PASSWORD), "{argv}");
    let words = [PASSWORD, ENCODED];
    let searched = [place.cache(), &place.path("layouts")];
    assert_eq!(holding(&searched, &words), "");
    // The search finds what is there.
    assert!(holding(&[&place.path("project")], &words).contains("requirements.txt"));
}

#[test]
fn errors_do_not_show_a_login() {
    let place = Place::new(&format!(
        "[images.app]\npip_indx = \"https://{LOGIN}@index.example/simple\"\n"
    ));
    let (code, told) = place.fails(&["plan"]);
    assert_eq!(code, Some(2));
    assert!(
        told.contains("pip_indx") && !told.contains(PASSWORD),
        "{told}"
    );
    let place = Place::new(&format!(
        "[images.app]\npackages = [\"guarded-one\"]\npip_index = \"http://{LOGIN}@127.0.0.1:1/simple\"\n"
    ));
    let (code, told) = place.fails(&["build", "--no-bytecode"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(
        told.contains("127.0.0.1:1") && !told.contains(PASSWORD),
        "{told}"
    );
}
