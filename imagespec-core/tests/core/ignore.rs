//! Which files of a source folder are copied, in and outside of git's work trees.

use std::path::Path;
use std::process::Command;

use crate::support::{folder, write};
use imagespec_core::files::walk;
use imagespec_core::ignore::Ignore;

/// git as it is without the configuration of whoever runs the tests.
fn git_command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(variable);
    }
    command
}

fn git(folder: &Path, arguments: &[&str]) {
    let status = git_command(folder).args(arguments).status();
    assert!(status.expect("git runs").success(), "git {arguments:?}");
}

fn kept(root: &Path) -> Vec<String> {
    let mut ignore = Ignore::load(root).expect("rules");
    let found = walk(root, Some(&mut ignore)).expect("files");
    found.into_iter().map(|found| found.path).collect()
}

/// What git itself would keep: tracked files, and untracked ones that no rule names.
fn kept_by_git(root: &Path) -> Vec<String> {
    let arguments = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let output = git_command(root)
        .args(arguments)
        .output()
        .expect("git runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut paths: Vec<_> = text.split_terminator('\0').map(str::to_owned).collect();
    paths.sort();
    paths
}

const FILES: [(&str, &str); 14] = [
    (
        ".gitignore",
        "*.log\nbuild/\n/top.txt\n!keep.log\nout/*\n!out/a.txt\n",
    ),
    ("a.log", ""),
    ("keep.log", ""),
    ("top.txt", ""),
    ("build/x.py", ""),
    ("out/a.txt", ""),
    ("out/b.txt", ""),
    ("sub/top.txt", ""),
    ("sub/a.log", ""),
    ("sub/.gitignore", "!a.log\nsecret*\ndeep/**/x\n"),
    ("sub/secret.txt", ""),
    ("sub/deep/1/2/x", ""),
    ("sub/build/keep.log", ""),
    ("tracked.log", "t"),
];

#[test]
fn git_s_rules_are_git_s_own() {
    for format in ["sha1", "sha256"] {
        for version in ["2", "4"] {
            let folder = folder(&FILES);
            let top = folder.path();
            git(top, &["init", "-q", &format!("--object-format={format}")]);
            git(top, &["config", "index.version", version]);
            write(top, ".git/info/exclude", "excluded\n");
            write(top, "excluded", "");
            write(top, "sub/build/kept.py", "");
            git(top, &["add", "-f", "tracked.log", "sub/build/kept.py"]);
            git(top, &["add", "-N", "keep.log"]);
            assert!(kept_by_git(top).contains(&"tracked.log".to_owned()));
            assert_eq!(kept(top), kept_by_git(top), "{format} {version}");
            let sub = top.join("sub");
            assert_eq!(
                kept(&sub),
                kept_by_git(&sub),
                "{format} {version}, in a folder"
            );
        }
    }
}

#[test]
fn a_linked_work_tree_has_rules_too() {
    let folder = folder(&[("main/.gitignore", "*.log\n"), ("main/t.log", "")]);
    let main = folder.path().join("main");
    git(&main, &["init", "-q"]);
    git(&main, &["add", "-f", "."]);
    let person = ["-c", "user.name=n", "-c", "user.email=e@host.invalid"];
    git(&main, &[&person[..], &["commit", "-q", "-m", "m"]].concat());
    git(&main, &["worktree", "add", "-q", "../tree"]);
    let tree = folder.path().join("tree");
    write(&main, ".git/info/exclude", "excluded\n");
    for file in ["u.log", "excluded"] {
        write(&tree, file, "");
    }
    assert_eq!(kept(&tree), [".gitignore", "t.log"]);
}

#[test]
fn outside_of_work_trees_git_has_no_say() {
    let folder = folder(&[
        (".gitignore", "*.log\n"),
        ("a.log", ""),
        (".dockerignore", "data\n!data/keep\n"),
        ("data/drop", ""),
        ("data/keep", ""),
        (".cache/x", ""),
        ("m.pyc", ""),
        ("p/__pycache__/m.cpython-311.pyc", ""),
        ("p/__pycache__/note", ""),
    ]);
    assert_eq!(
        kept(folder.path()),
        [".dockerignore", ".gitignore", "a.log", "data/keep"]
    );
}

#[test]
fn an_index_that_cannot_be_read_is_an_error() {
    let folder = folder(&[("a", "")]);
    git(folder.path(), &["init", "-q"]);
    write(folder.path(), ".git/index", "nonsense");
    let error = Ignore::load(folder.path()).expect_err("no index");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[cfg(unix)]
#[test]
fn sockets_and_links_that_lead_nowhere_are_left_out() {
    let folder = folder(&[("a", "")]);
    let at = |name: &str| folder.path().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
    fs_err::os::unix::fs::symlink("nowhere", at("dangling")).expect("a link");
    fs_err::os::unix::fs::symlink("a", at("link")).expect("a link");
    fs_err::os::unix::fs::symlink(".", at("loop")).expect("a link");
    assert_eq!(kept(folder.path()), ["a", "link", "loop"]);
}
