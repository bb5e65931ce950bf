//! A folder to run the command in.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder with a project, and an empty home beside it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    /// A project of files, by their path.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("place")
            .tempdir()
            .expect("a folder");
        let place = Self { folder };
        fs_err::create_dir_all(place.project()).expect("a folder");
        for (path, text) in files {
            let path = place.project().join(path);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs_err::write(path, text).expect("a file");
        }
        place
    }

    /// A project of one file: `imagespec.toml`.
    pub(crate) fn declaring(text: &str) -> Self {
        Self::new(&[("imagespec.toml", text)])
    }

    /// Puts a program on `PATH`.
    pub(crate) fn program(&self, name: &str, text: &str) {
        let folder = self.folder.path().join("bin");
        fs_err::create_dir_all(&folder).expect("a folder");
        let file = folder.join(name);
        fs_err::write(&file, text).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(&file, mode).expect("a mode");
    }

    pub(crate) fn project(&self) -> std::path::PathBuf {
        self.folder.path().join("project")
    }

    /// The command, in the project's folder, with nothing of this machine's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagespec"));
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .env("HOME", self.folder.path().join("home"))
            .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display()),
            )
            .stdin(Stdio::null());
        command
    }

    /// What the command says, with the folder and computed tags replaced by names.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.told(&mut self.command(arguments))
    }

    /// As [`Place::run`], with one variable.
    pub(crate) fn run_with(&self, variable: (&str, &str), arguments: &[&str]) -> String {
        self.told(self.command(arguments).env(variable.0, variable.1))
    }

    fn told(&self, command: &mut Command) -> String {
        let output = command.output().expect("the command");
        shown(&output, self.folder.path())
    }
}

fn shown(output: &Output, folder: &Path) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let folders = [
            folder.canonicalize().expect("a path").display().to_string(),
            folder.display().to_string(),
        ];
        let text = folders
            .iter()
            .fold(text, |text, folder| text.replace(folder, "[PLACE]"));
        without_tags(&text)
    };
    let code = output
        .status
        .code()
        .map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    format!(
        "exit code: {code}\n--- stdout\n{}--- stderr\n{}",
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Computed tags are 32 letters and digits in base 32; what they are is tested elsewhere.
fn without_tags(text: &str) -> String {
    let is_tag = |word: &str| {
        word.len() == 32
            && word
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    };
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let replaced = words.map(|word| {
        let end = word.len() - usize::from(!word.ends_with(|c: char| c.is_ascii_alphanumeric()));
        match word.get(..end) {
            Some(bare) if is_tag(bare) => format!("[TAG]{}", &word[end..]),
            _ => word.to_owned(),
        }
    });
    replaced.collect()
}
