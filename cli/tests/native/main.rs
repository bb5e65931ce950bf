//! Real images from the machine's own package index and Debian archive, built and run by the real command, as
//! whoever runs the tests and, where that is root, as an unprivileged user without subordinate ids too.

#![cfg(target_os = "linux")]

mod memory;
mod registry;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const NOBODY: &str = "65534";
const SPEC: &str = r#"
[images.base]
packages = ["six"]
commands = ["echo made > /root/made && mkdir /srv/x && chown 1000:1000 /srv/x", "pip install idna", "rm /etc/issue"]

[images.child]
base_image = { image = "base" }
packages = ["tabulate"]
env = { QUOTED = "b c 'q'" }

[images.scripted]
apt_packages = ["cron", "libedit2"]
"#;

/// A person with a copy of the command, a project and a cache of their own.
struct Person {
    folder: TempDir,
    unprivileged: bool,
    /// Whether nothing but uv is found on its machine.
    bare: bool,
}

impl Person {
    fn new(unprivileged: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("imagespec-")
            .tempdir()
            .expect("a folder");
        let person = Self {
            folder,
            unprivileged,
            bare: false,
        };
        let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello");
        fs_err::create_dir(person.path("hello")).expect("a folder");
        for name in ["imagespec.toml", "hello.py", "requirements.txt"] {
            fs_err::copy(hello.join(name), person.path("hello").join(name)).expect("a copy");
        }
        fs_err::write(person.path("imagespec.toml"), SPEC).expect("a file");
        fs_err::copy(env!("CARGO_BIN_EXE_imagespec"), person.path("imagespec")).expect("a copy");
        fs_err::set_permissions(person.path("imagespec"), PermissionsExt::from_mode(0o755))
            .expect("a mode");
        person
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives everything to the unprivileged user; what the person before fetched of uv comes along.
    fn settle(&self, before: &Self) {
        let tools = before.path("cache/tools");
        if tools.is_dir() {
            fs_err::create_dir_all(self.path("cache")).expect("a folder");
            done(
                Command::new("cp")
                    .arg("-a")
                    .arg(tools)
                    .arg(self.path("cache")),
            );
        }
        done(
            Command::new("chown")
                .args(["-R", "65534:65534"])
                .arg(self.folder.path()),
        );
    }

    fn run(&self, folder: &str, arguments: &[&str]) -> Output {
        let mut command = if self.unprivileged {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
            command.arg(self.path("imagespec"));
            command
        } else {
            Command::new(self.path("imagespec"))
        };
        command
            .args(arguments)
            .current_dir(self.path(folder))
            .env("HOME", self.path("."))
            .env("IMAGESPEC_CACHE_DIR", self.path("cache"));
        for name in [
            "IMAGESPEC_BUILDER",
            "IMAGESPEC_DEPLOYMENT",
            "IMAGESPEC_REGISTRY",
        ] {
            command.env_remove(name);
        }
        if self.bare {
            command.env("PATH", self.path("programs"));
        }
        command.output().expect("the command")
    }

    fn says(&self, folder: &str, arguments: &[&str]) -> String {
        let output = self.run(folder, arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("a text")
            .trim()
            .to_owned()
    }

    fn shell(&self, image: &str, line: &str) -> String {
        self.says(
            ".",
            &["exec", image, "--progress", "quiet", "--", "sh", "-c", line],
        )
    }
}

fn done(command: &mut Command) {
    assert!(command.status().expect("a program").success());
}

fn root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout == b"0\n"
}

/// What a person sees of all images; the same for everyone.
fn build_and_look(person: &Person) -> Vec<String> {
    let hello = person.says("hello", &["build"]);
    assert!(
        hello.starts_with("say-hello:") && hello.contains("@sha256:"),
        "{hello}"
    );
    let greeting = [
        "exec",
        "say-hello",
        "--",
        "python",
        "-c",
        "import hello,os; print(hello.say_hello('world'), os.getuid())",
    ];
    assert_eq!(person.says("hello", &greeting), "Hello, world! 1000");
    let again = person.run("hello", &["build", "--json"]);
    assert!(
        String::from_utf8_lossy(&again.stdout).contains("\"built\": false"),
        "{again:?}"
    );

    let mut built = vec![hello];
    built.extend(person.says(".", &["build"]).lines().map(str::to_owned));
    assert_eq!(built.len(), 4, "{built:?}");
    let look = "cat /root/made; python -c 'import six, idna'; stat -c %u /srv/x; ls /etc/issue /usr/bin/uv 2>/dev/null; ls /run";
    assert_eq!(person.shell("base", look), "made\n1000\nlock");
    let look = "echo \"$QUOTED\"; cat /root/made; python -c 'import six, idna, tabulate'; echo $VIRTUAL_ENV";
    assert_eq!(person.shell("child", look), "b c 'q'\nmade\n/opt/venv");
    let look = "dpkg --audit; dpkg-query -W -f '${Status}\\n' cron; getent group crontab | cut -d: -f1; ls /var/cache/imagespec /usr/sbin/policy-rc.d 2>/dev/null; true";
    assert_eq!(
        person.shell("scripted", look),
        "install ok installed\ncrontab"
    );

    let failing = person.run(
        ".",
        &[
            "exec",
            "base",
            "--progress",
            "quiet",
            "--",
            "sh",
            "-c",
            "exit 7",
        ],
    );
    assert_eq!(failing.status.code(), Some(7));
    built
}

#[test]
fn everyone_builds_the_same_images_and_can_run_them() {
    let first = Person::new(false);
    let built = build_and_look(&first);
    assert_eq!(
        first
            .says(".", &["build", "--force", "--progress", "quiet"])
            .lines()
            .collect::<Vec<_>>(),
        built[1..]
    );
    if root() {
        let second = Person::new(true);
        second.settle(&first);
        assert_eq!(build_and_look(&second), built);
    }
}

#[test]
fn a_machine_without_python_resolves_with_that_of_the_image() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("uv"));
    let Some(uv) = programs.find(|uv| uv.is_file()) else {
        assert!(std::env::var_os("CI").is_none(), "there is no uv");
        return;
    };
    let bare = Person {
        bare: true,
        ..Person::new(false)
    };
    fs_err::create_dir(bare.path("programs")).expect("a folder");
    fs_err::copy(uv, bare.path("programs/uv")).expect("a copy");
    let build = ["build", "--builder", "native"];
    let other = Person::new(false);
    assert_eq!(bare.says("hello", &build), other.says("hello", &build));
}
