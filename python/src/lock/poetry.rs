//! `poetry.lock`, versions 1 and 2, as pinned requirements.

use std::collections::{BTreeMap, BTreeSet};

use imagespec_core::error::BuildError;
use serde::Deserialize;
use toml::{Table, Value};

#[derive(Deserialize)]
struct PoetryLock {
    #[serde(default)]
    package: Vec<Package>,
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
    files: Vec<File>,
    source: Option<Table>,
}

#[derive(Deserialize)]
struct File {
    hash: String,
}

/// The packages of the group `main` as lines of a requirements file: version, marker, digests.
pub(super) fn requirements(lock: &str, pyproject: &str) -> Result<String, BuildError> {
    let wrong = |what: &str, error: toml::de::Error| {
        BuildError::input(format!("{what} cannot be read"))
            .field("requirements")
            .caused_by(&error)
    };
    let lock: PoetryLock = toml::from_str(lock).map_err(|error| wrong("poetry.lock", error))?;
    let pyproject: Table =
        toml::from_str(pyproject).map_err(|error| wrong("pyproject.toml", error))?;
    let wanted = wanted(&lock, &pyproject);
    let mut lines = String::new();
    for package in &lock.package {
        let grouped =
            package.groups.is_empty() || package.groups.iter().any(|group| group == "main");
        if !grouped
            || !wanted.contains(&normalised(&package.name))
            || (package.optional && !package.groups.is_empty())
        {
            continue;
        }
        if let Some(kind) = package
            .source
            .as_ref()
            .and_then(|source| source.get("type"))
            .and_then(Value::as_str)
            && !matches!(kind, "legacy" | "explicit")
        {
            let message = format!(
                "poetry.lock pins a package by its `{kind}`: `{}`",
                package.name
            );
            return Err(BuildError::input(message)
                .field("requirements")
                .hint("only packages of an index can be installed"));
        }
        lines.push_str(&format!("{}=={}", package.name, package.version));
        let marker = match &package.markers {
            Some(Value::String(marker)) => Some(marker.as_str()),
            Some(Value::Table(by_group)) => by_group.get("main").and_then(Value::as_str),
            _ => None,
        };
        if let Some(marker) = marker {
            lines.push_str(&format!(" ; {marker}"));
        }
        for file in &package.files {
            lines.push_str(&format!(" --hash={}", file.hash));
        }
        lines.push('\n');
    }
    Ok(lines)
}

/// The names reached from the project's own dependencies.
fn wanted(lock: &PoetryLock, pyproject: &Table) -> BTreeSet<String> {
    let by_name: BTreeMap<_, _> = lock
        .package
        .iter()
        .map(|package| (normalised(&package.name), package))
        .collect();
    let mut open: Vec<String> = Vec::new();
    let project = pyproject
        .get("project")
        .and_then(|project| project.get("dependencies"))
        .and_then(Value::as_array);
    open.extend(
        project
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|requirement| {
                let end = requirement
                    .find(|c: char| !c.is_alphanumeric() && !"._-".contains(c))
                    .unwrap_or(requirement.len());
                normalised(&requirement[..end])
            }),
    );
    let poetry = pyproject
        .get("tool")
        .and_then(|tool| tool.get("poetry")?.get("dependencies"))
        .and_then(Value::as_table);
    open.extend(
        poetry
            .into_iter()
            .flat_map(Table::keys)
            .filter(|name| *name != "python")
            .map(|name| normalised(name)),
    );
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let (true, Some(package)) = (reached.insert(name.clone()), by_name.get(&name)) {
            open.extend(package.dependencies.keys().map(|name| normalised(name)));
        }
    }
    reached
}

/// A name as indexes write it (PEP 503).
pub(super) fn normalised(name: &str) -> String {
    let parts: Vec<_> = name
        .split(['.', '_', '-'])
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_project_reaches_is_installed() {
        let lock = r#"
[[package]]
name = "Top_Level"
version = "1.0"
files = [{ file = "x.whl", hash = "sha256:aa" }]
[package.dependencies]
inner = ">=1"
[[package]]
name = "inner"
version = "2.0"
groups = ["main"]
markers = "python_version < \"4\""
[[package]]
name = "tool"
version = "3.0"
groups = ["dev"]
[[package]]
name = "old-dev"
version = "4.0"
"#;
        let pyproject = "[tool.poetry.dependencies]\npython = \"^3.9\"\ntop-level = \"^1\"\n";
        let lines = requirements(lock, pyproject).expect("requirements");
        assert_eq!(
            lines,
            "Top_Level==1.0 --hash=sha256:aa\ninner==2.0 ; python_version < \"4\"\n"
        );
        assert!(requirements("not toml", pyproject).is_err());
    }
}
