//! The same declaration gives the same digest, whatever is different around it.

use std::path::Path;

use crate::place::Place;

const DECLARATION: &str = r#"
[images.app]
packages = ["six", "idna", "tabulate"]
source_root = "src"
copy = ["data"]
env = { A = "1" }
commands = ["echo made > /root/made"]
"#;
const FILES: [(&str, &str); 5] = [
    ("src/b.py", "b = 2\n"),
    ("src/a.py", "a = 1\n"),
    ("src/deep/er/c.py", "c = 3\n"),
    ("data/z.txt", "z\n"),
    ("data/y.txt", "y\n"),
];

/// A checkout whose files were made in one order or the other, under a umask.
fn checkout(place: &Place, umask: &str, backwards: bool) {
    fs_err::remove_dir_all(place.path("project")).expect("no project");
    let mut files = FILES.to_vec();
    if backwards {
        files.reverse();
    }
    let mut lines = vec![format!("umask {umask}")];
    for (name, text) in files.iter().chain(&[("imagespec.toml", DECLARATION)]) {
        let path = place.path("project").join(name);
        let folder = path.parent().map(Path::display).expect("a folder above");
        lines.push(format!(
            "mkdir -p '{folder}'\ncat > '{}' <<'END'\n{text}END\n",
            path.display()
        ));
    }
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(lines.join("\n"))
        .status();
    assert!(status.expect("a shell").success());
}

/// Builds in a cache of the place's own or the shared one, under a umask.
fn digest(place: &Place, umask: &str, arguments: &[&str]) -> String {
    let command = place.command(&[]);
    let program = command.get_program().to_str().expect("a path").to_owned();
    let line = format!(
        "umask {umask}; exec '{program}' build --force --progress plain {}",
        arguments.join(" ")
    );
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(line).current_dir(place.path("project"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().expect("the command");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout).expect("a text")
}

#[test]
fn nothing_around_a_declaration_changes_its_digest() {
    let first = Place::new("");
    checkout(&first, "022", false);
    let expected = digest(&first, "022", &[]);
    assert!(expected.contains("@sha256:"));
    // The clock, the locale and the order of files have nothing to say, nor has who may read them.
    for (umask, backwards, jobs, zone, locale) in [
        ("077", true, "1", "Pacific/Kiritimati", "tr_TR.UTF-8"),
        ("000", false, "4", "America/St_Johns", "C"),
    ] {
        let mut place = Place::new("");
        checkout(&place, umask, backwards);
        place.set("TZ", zone);
        place.set("LC_ALL", locale);
        place.set("LANG", locale);
        assert_eq!(
            digest(&place, umask, &["--jobs", jobs]),
            expected,
            "{umask}"
        );
    }
    // Layers are made again, by one after the other and without what earlier builds left.
    let cold = Place::with_own_cache("");
    checkout(&cold, "077", true);
    assert_eq!(digest(&cold, "077", &["--jobs", "1"]), expected);
}
