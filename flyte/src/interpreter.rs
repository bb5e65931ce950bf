//! The user's Python: found as `pyflyte` would be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use imagespec_core::error::BuildError;

/// Asks for the version of Python, and of packages, as JSON. Modules of the working directory do not count.
const ASK: &str = "import sys; sys.path[0:1] = []\n\
import json\n\
from importlib import metadata\n\
def version(name):\n\
\x20   try: return metadata.version(name)\n\
\x20   except metadata.PackageNotFoundError: return None\n\
print(json.dumps({'python': '%d.%d' % sys.version_info[:2], 'found': {name: version(name) for name in sys.argv[1:]}}))";

/// A Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Its program.
    pub path: PathBuf,
}

/// Where programs are looked for: the folders of `PATH`, then the environment that is active or beside the code.
fn folders(folder: &Path, variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let path = variables
        .get("PATH")
        .map(String::as_str)
        .unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .collect();
    folders.extend(environments(folder, variables));
    folders
}

fn environments(folder: &Path, variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let active = variables.get("VIRTUAL_ENV").filter(|path| !path.is_empty());
    let active = active.map(|path| folder.join(path));
    let beside = folder.ancestors().map(|folder| folder.join(".venv"));
    let all = active
        .into_iter()
        .chain(beside)
        .map(|environment| environment.join("bin"));
    all.filter(|bin| bin.is_dir()).collect()
}

/// A program of the user's, such as `pyflyte`.
pub fn find_program(
    name: &str,
    folder: &Path,
    variables: &BTreeMap<String, String>,
) -> Option<PathBuf> {
    if name.contains('/') {
        let path = folder.join(name);
        return path.is_file().then_some(path);
    }
    let found = folders(folder, variables)
        .into_iter()
        .map(|bin| bin.join(name));
    found.into_iter().find(|path| path.is_file())
}

impl Interpreter {
    /// The Python of the `pyflyte` that would run; without one, that of the environment, or whatever is there.
    pub fn find(folder: &Path, variables: &BTreeMap<String, String>) -> Option<Self> {
        let of_script = find_program("pyflyte", folder, variables).and_then(|script| {
            let script = script.canonicalize().ok()?;
            let beside = ["python", "python3"].map(|name| script.with_file_name(name));
            beside
                .into_iter()
                .find(|path| path.is_file())
                .or_else(|| shebang(&script))
        });
        let in_environment = || {
            let found = environments(folder, variables)
                .into_iter()
                .map(|bin| bin.join("python"));
            found.into_iter().find(|path| path.is_file())
        };
        let any = || {
            ["python3", "python"]
                .iter()
                .find_map(|name| find_program(name, folder, variables))
        };
        let path = of_script.or_else(in_environment).or_else(any)?;
        Some(Self { path })
    }

    /// Its version, where its files say it.
    pub fn version(&self) -> Option<(u8, u8)> {
        let settings = self.path.parent()?.parent()?.join("pyvenv.cfg");
        let text = fs_err::read_to_string(settings).unwrap_or_default();
        let said = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            ["version", "version_info"]
                .contains(&key.trim())
                .then(|| value.trim().to_owned())
        });
        let said = said.or_else(|| {
            let path = self.path.canonicalize().ok()?;
            Some(
                path.file_name()?
                    .to_str()?
                    .strip_prefix("python")?
                    .to_owned(),
            )
        })?;
        let mut numbers = said.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// The version of flytekit that it has, where its files say it.
    pub fn flytekit(&self) -> Option<String> {
        let libraries = self.path.parent()?.parent()?.join("lib");
        let pythons = fs_err::read_dir(libraries).ok()?.flatten();
        let packages = pythons.map(|python| python.path().join("site-packages"));
        let found = packages
            .filter_map(|packages| fs_err::read_dir(packages).ok())
            .flatten()
            .flatten();
        found.into_iter().find_map(|entry| {
            let name = entry.file_name();
            let version = name
                .to_str()?
                .strip_prefix("flytekit-")?
                .strip_suffix(".dist-info")?;
            Some(version.to_owned())
        })
    }

    /// Its version, and those of packages that it has. Runs it, and nothing of the user's.
    pub fn ask(
        &self,
        packages: &[String],
    ) -> Result<(String, BTreeMap<String, String>), BuildError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            python: String,
            found: BTreeMap<String, Option<String>>,
        }
        let failed = || {
            BuildError::input(format!(
                "the interpreter does not answer: `{}`",
                self.path.display()
            ))
        };
        let output = Command::new(&self.path)
            .args(["-c", ASK])
            .args(packages)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|error| failed().caused_by(&error))?;
        let answer: Answer =
            serde_json::from_slice(&output.stdout).map_err(|error| failed().caused_by(&error))?;
        let found = answer
            .found
            .into_iter()
            .filter_map(|(name, version)| Some((name, version?)));
        Ok((answer.python, found.collect()))
    }
}

/// The program that a script says it is for.
fn shebang(script: &Path) -> Option<PathBuf> {
    let text = fs_err::read(script).ok()?;
    let text = String::from_utf8_lossy(&text[..text.len().min(1024)]).into_owned();
    let first = text
        .lines()
        .next()?
        .strip_prefix("#!")?
        .split_whitespace()
        .next()?
        .to_owned();
    let path = PathBuf::from(first);
    let is_python = path.file_name()?.to_str()?.starts_with("python");
    is_python.then_some(path)
}
