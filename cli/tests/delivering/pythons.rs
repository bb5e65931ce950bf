//! A Python that no release of Debian has comes from a distribution of its own, which uv downloads.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::place::{Place, Running, has};

/// A Go module with the files of a distribution.
const MODULE: (&str, &str) = (
    "github.com/kluctl/go-embed-python",
    "v0.0.0-3.14.6-20260610-1",
);
/// Where uv finds the list of distributions.
const LIST: &str = "UV_PYTHON_DOWNLOADS_JSON_URL";

const DECLARATION: &str = r#"
[images.new]
python_version = "3.14"
packages = ["six"]
[images.unknown]
python_version = "3.99"
packages = ["six"]
"#;

/// The distribution's files, downloaded once.
pub(crate) fn files() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let (module, version) = MODULE;
    let status = Command::new("go")
        .args(["mod", "download", &format!("{module}@{version}")])
        .env("GOMODCACHE", &cache)
        .env("GOFLAGS", "-modcacherw")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .status();
    assert!(status.expect("go").success());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        _ => "arm64",
    };
    let folder = cache.join(format!("{module}@{version}"));
    folder.join(format!("python/internal/data/linux-{architecture}"))
}

/// A server of the distribution, and the address of its list.
fn serve(folder: &Path) -> (Running, String) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delivering/pythons.py");
    let mut server = Command::new("python3");
    server
        .args([&program, &files(), folder])
        .stderr(Stdio::null());
    let (server, port) = Running::telling(&mut server);
    (server, format!("http://127.0.0.1:{port}/downloads.json"))
}

#[test]
fn a_python_that_debian_does_not_have_is_downloaded() {
    if !has("go") || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (server, list) = serve(folder.path());
    let mut place = Place::with_own_cache(DECLARATION);
    place.set(LIST, &list);
    let asked = ["new", "--output", "store"];
    let built = place.builds(&asked);

    let look = "import ctypes, six, sqlite3, ssl, sys, sysconfig as s; \
        print(sys.version_info[:2], sys.prefix, sys.base_prefix, s.get_config_var('CC'), s.get_path('include'))";
    let exec = ["exec", "new", "--progress", "quiet", "--"];
    let run = |command: &[&str]| place.says(&[&exec[..], command].concat());
    assert_eq!(
        run(&["python", "-c", look]),
        "(3, 14) /opt/venv /opt/python cc -pthread /opt/python/include/python3.14"
    );
    // One Python is enough, and its modules are compiled.
    let look = "import encodings, pathlib as p; \
        print(list(p.Path('/usr/bin').glob('python*')), p.Path(encodings.__cached__).is_file())";
    assert_eq!(run(&["python", "-c", look]), "[] True");

    // What was downloaded and made of it may go, and comes again.
    let layers = built["layers"].as_array().expect("layers");
    let is_python = |layer: &&Value| layer["created_by"] == "python 3.14.6";
    let layer = layers.iter().find(is_python).expect("a layer");
    let digest = layer["digest"].as_str().expect("a digest");
    let blob = place.cache().join("blobs").join(digest.replace(':', "/"));
    fs_err::remove_file(&blob).expect("a blob");
    for entry in fs_err::read_dir(place.cache().join("pythons")).expect("downloads") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            fs_err::remove_file(path).expect("an archive");
        }
    }
    assert_eq!(place.builds(&asked)["digest"], built["digest"]);
    assert!(blob.is_file());

    let (code, told) = place.fails(&["build", "unknown", "--output", "store"]);
    assert_eq!(code, Some(2), "{told}");
    for part in [
        "the `python_version` `3.99` is not to be had",
        "versions that Debian has: 3.9, 3.11, 3.13",
        "versions that uv downloads: 3.14",
    ] {
        assert!(told.contains(part), "{told}");
    }

    drop(server);
    let place = {
        let mut place = Place::new(DECLARATION);
        place.set(LIST, &list);
        place.set("UV_HTTP_RETRIES", "0");
        place
    };
    let (code, told) = place.fails(&["build", "new", "--output", "store"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("uv cannot download"), "{told}");
    assert!(told.contains("UV_PYTHON_INSTALL_MIRROR"), "{told}");
}
