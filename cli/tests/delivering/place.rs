//! A folder with a project, and the real command in it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// A cache that the tests share: what they build has the same base.
fn shared() -> &'static Path {
    static CACHE: OnceLock<TempDir> = OnceLock::new();
    CACHE
        .get_or_init(|| tempfile::tempdir().expect("a folder"))
        .path()
}

/// A project in a folder of its own.
pub(crate) struct Place {
    folder: TempDir,
    cache: PathBuf,
    variables: Vec<(String, String)>,
}

impl Place {
    /// A project of an `imagespec.toml`, with the cache that all tests share.
    pub(crate) fn new(declaration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Self {
            folder,
            cache: shared().to_owned(),
            variables: Vec::new(),
        };
        place.write("imagespec.toml", declaration);
        place
    }

    /// The same with a cache of its own, in which nothing is.
    pub(crate) fn with_own_cache(declaration: &str) -> Self {
        let mut place = Self::new(declaration);
        place.cache = place.path("cache");
        place
    }

    /// Another empty project with the same cache and variables.
    pub(crate) fn again(&self) -> Self {
        let mut place = Self::new("");
        place.cache.clone_from(&self.cache);
        place.variables.clone_from(&self.variables);
        place
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Where a file of the project is. The project's folder is `project` of the place's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path("project").join(name);
        fs_err::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
        fs_err::write(path, text).expect("a file");
    }

    /// Sets a variable for every command that follows.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Puts the examples of builders as programs on `PATH`: the one in Python, and the one that is built beside the
    /// command.
    pub(crate) fn with_external_builders(&mut self) {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/external-builder");
        let rust =
            Path::new(env!("CARGO_BIN_EXE_imagespec")).with_file_name("imagespec-builder-acme");
        assert!(
            rust.is_file(),
            "not built: `cargo test --workspace --all-targets` does"
        );
        let built = rust.parent().expect("a folder").display();
        let path = std::env::var("PATH").expect("a path");
        self.set("PATH", &format!("{python}:{built}:{path}"));
    }

    /// The command as the last arguments of another program, in the same place and with the same variables.
    pub(crate) fn through(&self, program: &[&str], arguments: &[&str]) -> Command {
        let command = self.command(arguments);
        let mut through = Command::new(program[0]);
        through
            .args(&program[1..])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(self.path("project"));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => through.env(name, value),
                None => through.env_remove(name),
            };
        }
        through
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagespec"));
        command
            .args(arguments)
            .current_dir(self.path("project"))
            .env("IMAGESPEC_CACHE_DIR", &self.cache)
            .stdin(Stdio::null());
        for name in [
            "IMAGESPEC_BUILDER",
            "IMAGESPEC_DEPLOYMENT",
            "IMAGESPEC_REGISTRY",
            "DOCKER_HOST",
            "DOCKER_TLS_VERIFY",
        ] {
            command.env_remove(name);
        }
        // An engine of this machine is not what the tests are about, unless they start one.
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command")
    }

    /// What a command prints that must succeed.
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout)
            .expect("a text")
            .trim()
            .to_owned()
    }

    /// The exit code of a command, and what it says on standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        (output.status.code(), told(&output))
    }

    /// The first image that `build --json` with further arguments tells of.
    pub(crate) fn builds(&self, arguments: &[&str]) -> Value {
        let all = [&["build", "--json", "--progress", "plain"], arguments].concat();
        let mut told: Value = serde_json::from_str(&self.says(&all)).expect("JSON");
        told["images"][0].take()
    }
}

/// What runs a command in an image, and says nothing else.
pub(crate) fn exec<'a>(name: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["exec", name, "--progress", "quiet", "--"], command].concat()
}

pub(crate) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts a program, and returns the first line that it prints.
    pub(crate) fn telling(program: &mut Command) -> (Self, String) {
        let mut child = program.stdout(Stdio::piped()).spawn().expect("a program");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("a line");
        (Self(child), line.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a program is there; without it a test is skipped, unless `CI` is set.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "the test needs `{program}`"
    );
    found
}

/// Folders of programs that a variable names; without them a test is skipped, unless `CI` is set.
pub(crate) fn tools(variable: &str) -> Option<Vec<PathBuf>> {
    let named = std::env::var_os(variable).filter(|named| !named.is_empty());
    assert!(
        named.is_some() || std::env::var_os("CI").is_none(),
        "the test needs what `{variable}` names, as `cargo xtask test` does"
    );
    Some(std::env::split_paths(&named?).collect())
}
