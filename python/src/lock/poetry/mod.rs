//! `poetry.lock`, versions 1 and 2, as pinned requirements.

mod constraint;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use imagespec_core::error::BuildError;
use pep508_rs::MarkerEnvironment;
use serde::Deserialize;
use toml::{Table, Value};

use super::Target;

#[derive(Deserialize)]
struct PoetryLock {
    #[serde(default)]
    package: Vec<Package>,
    #[serde(default)]
    metadata: Metadata,
}

/// Of the versions before 1.2 of the format, where hashes stand apart.
#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    files: BTreeMap<String, Vec<File>>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    optional: bool,
    markers: Option<Value>,
    #[serde(default)]
    dependencies: Table,
    #[serde(default)]
    extras: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    files: Vec<File>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct File {
    hash: String,
}

#[derive(Deserialize)]
struct Source {
    r#type: String,
    #[serde(default)]
    url: String,
}

/// What a lock pins, for an interpreter and a platform.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pinned {
    /// Lines of a requirements file: version, marker, digests.
    pub(super) requirements: String,
    /// URLs of the indexes that it names besides the usual one.
    pub(super) indexes: BTreeSet<String>,
}

/// What a `poetry.lock` pins for a target, with the `pyproject.toml` beside it, as a requirements file.
pub fn read(lock: &str, pyproject: &str, target: &Target) -> Result<String, BuildError> {
    pinned(lock, pyproject, &target.markers()).map(|pinned| pinned.requirements)
}

/// The packages of the group `main`, without its extras.
pub(super) fn pinned(
    lock: &str,
    pyproject: &str,
    env: &MarkerEnvironment,
) -> Result<Pinned, BuildError> {
    let wrong = |what: &str, error: toml::de::Error| {
        let error = BuildError::input(format!("`{what}` cannot be read")).caused_by(&error);
        error.field("requirements")
    };
    let lock: PoetryLock = toml::from_str(lock).map_err(|error| wrong("poetry.lock", error))?;
    let pyproject: Table =
        toml::from_str(pyproject).map_err(|error| wrong("pyproject.toml", error))?;
    // Since version 2.1 of the format the lock says itself which packages are whose.
    let grouped = lock
        .package
        .iter()
        .any(|package| !package.groups.is_empty());
    let wanted: Vec<&Package> = if grouped {
        let main = |package: &&Package| {
            !package.optional && package.groups.iter().any(|group| group == "main")
        };
        lock.package.iter().filter(main).collect()
    } else {
        walk::reached(&lock.package, &pyproject, env)
    };
    let mut pinned = Pinned::default();
    for package in wanted {
        pinned.add(package, &lock.metadata)?;
    }
    Ok(pinned)
}

impl Pinned {
    fn add(&mut self, package: &Package, metadata: &Metadata) -> Result<(), BuildError> {
        match &package.source {
            Some(source) if source.r#type == "legacy" => {
                self.indexes.insert(source.url.clone());
            }
            Some(source) => {
                let message = format!(
                    "`poetry.lock` pins a package by its {}: `{}`",
                    source.r#type, package.name
                );
                let error = BuildError::input(message).field("requirements");
                return Err(error.hint("only packages of an index can be installed"));
            }
            None => {}
        }
        let mut line = format!("{}=={}", package.name, package.version);
        let marker = match &package.markers {
            Some(Value::String(marker)) => Some(marker.as_str()),
            Some(Value::Table(by_group)) => by_group.get("main").and_then(Value::as_str),
            _ => None,
        };
        if let Some(marker) = marker {
            let _ = write!(line, " ; {marker}");
        }
        let apart = metadata
            .files
            .iter()
            .find(|(name, _)| normalised(name) == normalised(&package.name));
        for file in package
            .files
            .iter()
            .chain(apart.into_iter().flat_map(|(_, files)| files))
        {
            let _ = write!(line, " --hash={}", file.hash);
        }
        if line.contains(['\n', '\r']) {
            let message = format!(
                "`poetry.lock` is not sound at `{}`",
                package.name.escape_debug()
            );
            return Err(BuildError::input(message).field("requirements"));
        }
        self.requirements.push_str(&line);
        self.requirements.push('\n');
        Ok(())
    }
}

/// A name as indexes write it (PEP 503).
pub fn normalised(name: &str) -> String {
    let parts: Vec<_> = name
        .split(['.', '_', '-'])
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Libc, Target};
    use imagespec_core::platform::Platform;

    fn read(lock: &str, pyproject: &str) -> Result<Pinned, BuildError> {
        let target = Target {
            python: 11,
            platform: Platform::amd64(),
            libc: Libc::Glibc(2, 36),
        };
        pinned(lock, pyproject, &target.markers())
    }

    #[test]
    fn groups_of_newer_locks_are_believed() {
        let lock = r#"
[[package]]
name = "inner"
version = "2.0"
groups = ["main", "dev"]
markers = { main = "python_version < \"4\"", dev = "python_version < \"3\"" }
files = [{ file = "x.whl", hash = "sha256:aa" }]
[[package]]
name = "private"
version = "1"
groups = ["main"]
[package.source]
type = "legacy"
url = "https://index.invalid/simple"
reference = "mine"
[[package]]
name = "tool"
version = "3.0"
groups = ["dev"]
[[package]]
name = "extra"
version = "3.0"
optional = true
groups = ["main"]
"#;
        let pinned = read(lock, "[project]\nname = \"x\"\n").unwrap();
        assert_eq!(
            pinned.requirements,
            "inner==2.0 ; python_version < \"4\" --hash=sha256:aa\nprivate==1\n"
        );
        assert!(pinned.indexes.contains("https://index.invalid/simple"));
    }

    #[test]
    fn older_locks_are_walked_from_the_project() {
        let lock = r#"
[[package]]
name = "Top_Level"
version = "1.0"
[package.dependencies]
inner = [{ version = "<2", markers = "python_version < \"3.8\"" }, { version = ">=2", markers = "python_version >= \"3.8\"" }]
windows = { version = "*", markers = "sys_platform == \"win32\"" }
socks = { version = ">=1", optional = true, markers = "extra == \"socks\"" }
zip = { version = ">=1", optional = true, markers = "extra == \"zip\"" }
[package.extras]
socks = ["socks (>=1)"]
zip = ["zip (>=1)"]
[[package]]
name = "inner"
version = "1.5"
[[package]]
name = "inner"
version = "2.5"
[[package]]
name = "windows"
version = "1"
[[package]]
name = "socks"
version = "1"
[[package]]
name = "zip"
version = "1"
[[package]]
name = "dev-only"
version = "4.0"
[metadata]
lock-version = "1.1"
[metadata.files]
socks = [{ file = "socks.whl", hash = "sha256:bb" }]
"#;
        let pyproject = r#"
[tool.poetry.dependencies]
python = "^3.9"
top-level = { version = "^1", extras = ["socks"] }
windows = { version = "*", platform = "win32" }
dev-only = { version = "*", optional = true }
zip = { version = "*", python = "<3.10" }
[tool.poetry.group.dev.dependencies]
dev-only = "*"
"#;
        let found = read(lock, pyproject).unwrap();
        assert_eq!(
            found.requirements,
            "Top_Level==1.0\ninner==2.5\nsocks==1 --hash=sha256:bb\n"
        );
        let project = "[project]\ndependencies = [\"Top.Level[zip]>=1\", \"windows ; sys_platform == 'win32'\"]\n";
        let found = read(lock, project).unwrap();
        assert_eq!(found.requirements, "Top_Level==1.0\ninner==2.5\nzip==1\n");
    }

    #[test]
    fn what_is_no_lock_or_no_package_of_an_index_is_refused() {
        assert!(read("not toml", "").is_err());
        let git = "[[package]]\nname = \"a\"\nversion = \"1\"\ngroups = [\"main\"]\nsource = { type = \"git\", url = \"x\" }\n";
        assert!(read(git, "").unwrap_err().message.contains("git: `a`"));
        let smuggled = "[[package]]\nname = \"a\"\nversion = \"1\\n-i https://x.invalid\"\ngroups = [\"main\"]\n";
        assert!(read(smuggled, "").is_err());
    }
}
