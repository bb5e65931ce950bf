//! Passwords that a build needs appear nowhere but where they are needed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::index::Index;
use crate::place::{Cache, Place, Ran, processes, wheels};
use crate::registry::{PASSWORD, Registry};
use crate::wheels::unpacked;

/// The password of the index.
const INDEX: &str = "planted-index-password";
/// `user` with [`PASSWORD`], and `user` with [`INDEX`], in Base64.
const ENCODED: [&str; 2] = [
    "dXNlcjpwbGFudGVkLXJlZ2lzdHJ5LXBhc3N3b3Jk",
    "dXNlcjpwbGFudGVkLWluZGV4LXBhc3N3b3Jk",
];

fn found_in(bytes: &[u8]) -> Option<&'static str> {
    let texts = [PASSWORD, INDEX, ENCODED[0], ENCODED[1]];
    texts
        .into_iter()
        .find(|text| memchr::memmem::find(bytes, text.as_bytes()).is_some())
}

/// No file below a folder holds a secret, packed or not.
#[track_caller]
fn none_below(files: impl IntoIterator<Item = PathBuf>) {
    let mut searched = 0;
    for path in files {
        if !path.is_symlink() && path.is_file() {
            let bytes = unpacked(&path).unwrap_or_default();
            assert_eq!(found_in(&bytes), None, "in `{}`", path.display());
            searched += 1;
        }
    }
    assert!(searched > 5, "only {searched} files were searched");
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Runs the command while every command line of the machine is searched.
fn watched(place: &Place, arguments: &[&str]) -> Ran {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                for text in [PASSWORD, INDEX, ENCODED[0], ENCODED[1]] {
                    seen.extend(processes(text));
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            seen
        });
        let ran = place.run(arguments);
        ended.store(true, Ordering::Relaxed);
        let seen = watch.join().expect("the watch");
        assert!(seen.is_empty(), "in command lines: {seen:?}");
        ran
    })
}

#[test]
fn passwords_are_in_no_layer_log_command_line_error_or_cache() {
    let Some(registry) = Registry::start(true) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let login = format!("Basic {}", ENCODED[1]);
    let index = Index::serve(&wheels(folder.path()), Some(&login));
    let mut place = Place::new(Cache::Base, &index);
    place.set("PIP_INDEX_URL", &index.url(&format!("user:{INDEX}@")));
    let docker = place.path("docker");
    fs_err::create_dir(&docker).expect("a folder");
    place.set("DOCKER_CONFIG", docker.to_str().expect("a path"));
    let config = |auth: &str| {
        let text = format!(
            "{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}",
            registry.name()
        );
        fs_err::write(docker.join("config.json"), text).expect("a file");
    };
    let to = format!("{}/team", registry.name());
    // `user` with another password.
    config("dXNlcjpwbGFudGVkLWluZGV4LXBhc3N3b3Jk");
    for (arguments, codes) in [
        (
            &["build", "--registry", &to, "--progress", "json"][..],
            &[3, 4][..],
        ),
        (&["build", "--registry", &to, "--json"], &[0]),
        (
            &["build", "--registry", &to, "--force", "--progress", "plain"],
            &[0],
        ),
        (&["plan", "--format", "json"], &[0]),
    ] {
        let ran = watched(&place, arguments);
        assert!(
            codes.contains(&ran.code.unwrap_or(-1)),
            "{arguments:?}: {}",
            ran.stderr
        );
        for text in [&ran.stdout, &ran.stderr] {
            assert_eq!(found_in(text.as_bytes()), None, "{arguments:?}: {text}");
        }
        config("dXNlcjpwbGFudGVkLXJlZ2lzdHJ5LXBhc3N3b3Jk");
    }
    none_below(place.written());
    none_below(below(&registry.data()));
}

#[test]
fn a_secret_is_found_where_there_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("packed");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, format!("x{PASSWORD}y").as_bytes()).expect("gzip");
    fs_err::write(&path, gzip.finish().expect("gzip")).expect("a file");
    assert_eq!(found_in(&unpacked(&path).expect("a file")), Some(PASSWORD));
}
