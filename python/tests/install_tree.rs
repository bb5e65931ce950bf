//! What a layer holds is what `uv pip install` makes of the same wheels, file by file, and it is hardly larger
//! than if it were compressed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::MultiGzDecoder;
use imagespec_core::context::Compression;
use imagespec_core::contract::{MTIME, USER_ID};
use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_core::plan::PackageIndex;
use imagespec_oci::layer::{LayerInfo, LayerWriter, contract_parents};
use imagespec_python::index::environment;
use imagespec_python::layers;
use imagespec_python::uv::Uv;
use imagespec_python::wheel::Layout;

/// Popular wheels with native code, programs, headers, data files, namespaces and many small files.
const CORPUS: [&str; 18] = [
    "black",
    "certifi",
    "click",
    "cryptography",
    "flask",
    "google-cloud-core",
    "greenlet",
    "jedi",
    "jupyter-core",
    "notebook",
    "numpy",
    "protobuf",
    "pybind11-global",
    "pyyaml",
    "requests",
    "ruff",
    "setuptools",
    "tqdm",
];
/// What only uv writes: that a person asked for it, and where it came from.
const ONLY_UV: [&str; 3] = ["REQUESTED", "direct_url.json", "uv_cache.json"];

/// A file: whether it can be executed, and its content.
#[derive(PartialEq, Eq)]
struct File {
    executable: bool,
    content: Vec<u8>,
}

/// Files by their path below the environment.
type Tree = BTreeMap<String, File>;

#[tokio::test]
async fn the_tree_is_that_of_uv() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install-tree");
    let mut wheels = corpus(&cache.join("wheels"));
    let place = tempfile::tempdir().expect("a folder");
    python(&[
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/odd_wheel.py"),
        place.path().to_str().expect("a path"),
    ]);
    wheels.extend(wheels_in(place.path()));
    assert!(wheels.len() > CORPUS.len(), "{wheels:?}");
    let version = python(&["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]);
    let layout = Layout {
        python: version.trim().to_owned(),
    };

    let venv = place.path().join("venv");
    let expected = installed(&cache, &wheels, &venv).await;
    let (ours, info) = layer(&wheels, &layout, Compression::Gzip);
    compare(&ours, &expected, &venv);
    assert_eq!(layer(&wheels, &layout, Compression::Gzip).1, info);
    for wheel in &wheels {
        let size = |how| layer(std::slice::from_ref(wheel), &layout, how).1.size;
        let (many, one) = (size(Compression::Gzip), size(Compression::GzipSingle));
        let most = one + one / 20;
        assert!(many <= most, "{many} bytes for {one}: {}", wheel.display());
    }
}

#[track_caller]
fn compare(ours: &Tree, expected: &Tree, venv: &Path) {
    let only_uv = |path: &str| {
        path == ".lock" || metadata_file(path).is_some_and(|name| ONLY_UV.contains(&name))
    };
    let paths: BTreeSet<_> = ours.keys().collect();
    let wanted: BTreeSet<_> = expected.keys().filter(|path| !only_uv(path)).collect();
    let difference: Vec<_> = paths.symmetric_difference(&wanted).collect();
    assert!(difference.is_empty(), "{difference:#?}");
    let theirs = format!("#!{}/bin/python", venv.display());
    for path in paths {
        let (found, wanted) = (&ours[path], &expected[path]);
        assert_eq!(found.executable, wanted.executable, "{path}");
        if metadata_file(path) == Some("INSTALLER") {
            assert_eq!(found.content, b"imagespec");
        } else if metadata_file(path) == Some("RECORD") {
            compare_records(path, ours, expected);
        } else if let Some(rest) = wanted.content.strip_prefix(theirs.as_bytes()) {
            let found = found.content.strip_prefix(b"#!/opt/venv/bin/python");
            let found = found.unwrap_or_else(|| panic!("`{path}` runs under something else"));
            if !is_launcher(rest) {
                assert!(found == rest, "{path}");
            }
        } else {
            assert!(found.content == wanted.content, "{path}");
        }
    }
}

/// The name of a file of what describes an installed distribution; not one that others carry along.
fn metadata_file(path: &str) -> Option<&str> {
    let (_, inside) = path.split_once("/site-packages/")?;
    let (folder, name) = inside.split_once('/')?;
    folder.ends_with(".dist-info").then_some(name)
}

/// Whether uv made a script for an entry point, for which there are templates as many as installers.
fn is_launcher(script: &[u8]) -> bool {
    let text = String::from_utf8_lossy(script);
    text.contains("-script.pyw") && text.contains("sys.exit(")
}

/// Both records list the same files, and ours says the truth about each.
#[track_caller]
fn compare_records(record: &str, ours: &Tree, expected: &Tree) {
    let site = record
        .rsplit_once('/')
        .and_then(|(path, _)| path.rsplit_once('/'));
    let (site, _) = site.expect("a path");
    let (found, wanted) = (rows(&ours[record].content), rows(&expected[record].content));
    // uv also lists what it does not install: what is its own, and scripts that entry points replace.
    let there: BTreeSet<_> = wanted
        .keys()
        .filter(|row| ours.contains_key(&resolved(site, row)))
        .collect();
    assert_eq!(found.keys().collect::<BTreeSet<_>>(), there, "{record}");
    for (row, said) in &found {
        let content = &ours[&resolved(site, row)].content;
        let digest = URL_SAFE_NO_PAD.encode(Digest::of(content).as_bytes());
        let truth = format!("sha256={digest},{}", content.len());
        let own = resolved(site, row) == record;
        assert_eq!(said, if own { "," } else { &truth }, "{row}");
    }
}

fn resolved(site: &str, row: &str) -> String {
    match row.strip_prefix("../../../") {
        Some(outside) => outside.to_owned(),
        None => format!("{site}/{row}"),
    }
}

/// Path, and what follows it.
fn rows(record: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(record);
    let row = |line: &str| {
        let mut fields = line.rsplitn(3, ',');
        let (size, hash, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_matches('"').replace("\"\"", "\"");
        Some((path, format!("{hash},{size}")))
    };
    text.lines()
        .map(|line| row(line).unwrap_or_else(|| panic!("a row: {line}")))
        .collect()
}

/// The layer of wheels, which has no other owner and time than the contract's.
fn layer(wheels: &[PathBuf], layout: &Layout, how: Compression) -> (Tree, LayerInfo) {
    let file = tempfile::tempfile().expect("a file");
    let mut layer = LayerWriter::new(file, how, contract_parents).expect("a layer");
    let paths: Vec<_> = wheels.iter().map(PathBuf::as_path).collect();
    layers::write(&paths, layout, &mut layer).expect("a layer");
    let (mut file, info) = layer.finish().expect("a layer");
    file.rewind().expect("a file");
    let mut archive = tar::Archive::new(MultiGzDecoder::new(std::io::BufReader::new(file)));
    let mut tree = Tree::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("a path");
        let Some(path) = path.strip_prefix("opt/venv/") else {
            assert_eq!(path, "opt/");
            continue;
        };
        let header = entry.header();
        let owner = u64::from(USER_ID);
        assert_eq!(header.uid().expect("a uid"), owner, "{path}");
        assert_eq!(header.gid().expect("a gid"), owner, "{path}");
        assert_eq!(header.mtime().ok(), u64::try_from(MTIME).ok(), "{path}");
        let mode = header.mode().expect("a mode");
        if header.entry_type().is_dir() {
            assert_eq!(mode, 0o755, "{path}");
            continue;
        }
        assert!(header.entry_type().is_file(), "{path}");
        assert!(matches!(mode, 0o755 | 0o644), "{path}: {mode:o}");
        let executable = mode == 0o755;
        let path = path.to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        tree.insert(
            path,
            File {
                executable,
                content,
            },
        );
    }
    (tree, info)
}

/// What uv adds to a new environment.
async fn installed(cache: &Path, wheels: &[PathBuf], venv: &Path) -> Tree {
    let variables: BTreeMap<_, _> = std::env::vars().collect();
    let host = Host {
        home: variables.get("HOME").map(PathBuf::from),
        variables,
        cache_dir: cache.to_owned(),
        ..Host::default()
    };
    let uv = Uv::find(&host).await.expect("uv");
    let env = environment(&host, &PackageIndex::default());
    let run = async |arguments: Vec<String>| {
        let output = uv
            .run(&arguments, cache, &env, None)
            .await
            .expect("uv runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    };
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    let python = python(&["-c", "import sys; print(sys.executable)"]);
    let flags = ["venv", "--python", python.trim()].map(str::to_owned);
    run([&flags[..], &[text(venv)]].concat()).await;
    let mut before = Tree::new();
    collect(venv, "", &mut before);
    let flags = ["pip", "install", "--no-deps", "--no-index", "--python"].map(str::to_owned);
    let files: Vec<_> = wheels.iter().map(|wheel| text(wheel)).collect();
    run([&flags[..], &[text(&venv.join("bin/python"))], &files].concat()).await;
    let mut after = Tree::new();
    collect(venv, "", &mut after);
    after.retain(|path, _| !before.contains_key(path));
    after
}

fn collect(root: &Path, folder: &str, tree: &mut Tree) {
    for entry in fs_err::read_dir(root.join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        let path = [folder, &name].join(if folder.is_empty() { "" } else { "/" });
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            collect(root, &path, tree);
        } else if kind.is_file() {
            let mode = entry.metadata().expect("metadata").permissions().mode();
            let content = fs_err::read(entry.path()).expect("content");
            let executable = mode & 0o111 != 0;
            tree.insert(
                path,
                File {
                    executable,
                    content,
                },
            );
        }
    }
}

/// The corpus for this machine, fetched by name, once.
fn corpus(folder: &Path) -> Vec<PathBuf> {
    fs_err::create_dir_all(folder).expect("a folder");
    if wheels_in(folder).len() < CORPUS.len() {
        let to = folder.to_str().expect("a path");
        let flags = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            to,
        ];
        python(&[&flags[..], &["--only-binary=:all:"], &CORPUS].concat());
    }
    wheels_in(folder)
}

fn wheels_in(folder: &Path) -> Vec<PathBuf> {
    let mut wheels: Vec<_> = fs_err::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .collect();
    wheels.sort();
    wheels
}

fn python(arguments: &[&str]) -> String {
    let output = Command::new("python3").args(arguments).output();
    let output = output.expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("text")
}
