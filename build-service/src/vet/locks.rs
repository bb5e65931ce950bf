//! Lock files and projects of people who are not trusted: names and versions of packages, and servers that all the world
//! may ask.

use imagespec_core::error::BuildError;
use toml::{Table, Value};

use super::servers::open;
use super::{TRUST, requirement};
use crate::settings::Limits;

/// What a project may say to uv: how it is put together, not what comes from where.
const TO_UV: [&str; 5] = [
    "dev-dependencies",
    "default-groups",
    "managed",
    "package",
    "required-version",
];

fn parsed(text: &str) -> Result<Table, BuildError> {
    text.parse::<Table>()
        .map_err(|error| BuildError::input("the file cannot be read").caused_by(&error))
}

fn refused(what: &str) -> BuildError {
    let message =
        format!("the service takes no such package from people whom it does not trust: `{what}`");
    BuildError::input(message).hint(TRUST)
}

fn packages(table: &Table) -> impl Iterator<Item = &Table> {
    let packages = table.get("package").and_then(Value::as_array);
    packages.into_iter().flatten().filter_map(Value::as_table)
}

fn name(package: &Table) -> &str {
    package.get("name").and_then(Value::as_str).unwrap_or("?")
}

/// A `uv.lock`: packages of indexes, and the project itself.
pub(super) fn uv(text: &str, limits: &Limits) -> Result<(), BuildError> {
    let table = parsed(text)?;
    for package in packages(&table) {
        let source = package.get("source").and_then(Value::as_table);
        let source = source.ok_or_else(|| refused(name(package)))?;
        for (kind, value) in source {
            match (kind.as_str(), value.as_str()) {
                ("registry", Some(url)) => open(url, limits)?,
                ("virtual" | "editable", Some(".")) => {}
                _ => return Err(refused(name(package))),
            }
        }
        let wheels = package.get("wheels").and_then(Value::as_array);
        let files = wheels.into_iter().flatten().chain(package.get("sdist"));
        for file in files {
            let url = file.get("url").and_then(Value::as_str);
            open(url.ok_or_else(|| refused(name(package)))?, limits)?;
        }
    }
    Ok(())
}

/// A `poetry.lock`: packages of indexes.
pub(super) fn poetry(text: &str, limits: &Limits) -> Result<(), BuildError> {
    let table = parsed(text)?;
    for package in packages(&table) {
        let Some(source) = package.get("source") else {
            continue;
        };
        let text = |key| source.get(key).and_then(Value::as_str);
        match (text("type"), text("url")) {
            (Some("legacy"), Some(url)) => open(url, limits)?,
            _ => return Err(refused(name(package))),
        }
    }
    Ok(())
}

/// A `pyproject.toml`: plain requirements.
pub(super) fn project(text: &str) -> Result<(), BuildError> {
    let table = parsed(text)?;
    let tools = table.get("tool").and_then(Value::as_table);
    let to_uv = tools
        .and_then(|tools| tools.get("uv"))
        .and_then(Value::as_table);
    let told = to_uv.into_iter().flat_map(Table::keys);
    if let Some(key) = told.map(String::as_str).find(|key| !TO_UV.contains(key)) {
        let message = format!(
            "the service takes no such setting from people whom it does not trust: `tool.uv.{key}`"
        );
        return Err(BuildError::input(message).hint(TRUST));
    }
    let Some(project) = table.get("project").and_then(Value::as_table) else {
        return Ok(());
    };
    let optional = project
        .get("optional-dependencies")
        .and_then(Value::as_table);
    let optional = optional.into_iter().flat_map(Table::values);
    let groups = table.get("dependency-groups").and_then(Value::as_table);
    let groups = groups.into_iter().flat_map(Table::values);
    let lists = project
        .get("dependencies")
        .into_iter()
        .chain(optional)
        .chain(groups);
    for entry in lists.filter_map(Value::as_array).flatten() {
        // A group may include another, by a table.
        if let Some(text) = entry.as_str() {
            requirement(text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(source: &str, rest: &str) -> String {
        format!("[[package]]\nname = \"a\"\nsource = {source}\n{rest}\n")
    }

    #[test]
    fn a_lock_names_packages_of_open_indexes() {
        let limits = Limits {
            indexes: vec!["http://index.internal/simple".to_owned()],
            ..Limits::default()
        };
        let ours = "{ registry = \"http://index.internal/simple\" }";
        let wheel = |url: &str| format!("wheels = [{{ url = \"{url}\", hash = \"sha256:00\" }}]");
        for (source, rest, fine) in [
            (ours, String::new(), true),
            (ours, wheel("http://index.internal/files/a.whl"), true),
            (ours, wheel("http://127.0.0.1/a.whl"), false),
            (ours, wheel("file:///etc/passwd"), false),
            (ours, wheel("https://169.254.169.254/latest"), false),
            (
                ours,
                "wheels = [{ path = \"/etc/passwd\" }]".to_owned(),
                false,
            ),
            (
                ours,
                "sdist = { url = \"http://localhost/a.tar.gz\" }".to_owned(),
                false,
            ),
            ("{ virtual = \".\" }", String::new(), true),
            ("{ editable = \".\" }", String::new(), true),
            ("{ editable = \"../other\" }", String::new(), false),
            ("{ registry = \"../folder\" }", String::new(), false),
            (
                "{ registry = \"http://other.internal/simple\" }",
                String::new(),
                false,
            ),
            ("{ path = \"/srv/a.whl\" }", String::new(), false),
            ("{ git = \"https://host/a\" }", String::new(), false),
            ("{ url = \"https://host/a.whl\" }", String::new(), false),
        ] {
            let text = package(source, &rest);
            assert_eq!(uv(&text, &limits).is_ok(), fine, "{text}");
        }
        assert!(uv("[[package]]\nname = \"a\"\n", &limits).is_err());
        let legacy = "{ type = \"legacy\", url = \"http://index.internal/simple\" }";
        for (source, fine) in [
            (legacy, true),
            ("{ type = \"legacy\", url = \"http://localhost/\" }", false),
            ("{ type = \"git\", url = \"https://host/a\" }", false),
            ("{ type = \"file\", url = \"/etc/passwd\" }", false),
        ] {
            let text = package(source, "");
            assert_eq!(poetry(&text, &limits).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn a_project_has_plain_requirements() {
        for (text, fine) in [
            (
                "[project]\ndependencies = [\"numpy>=2\"]\n[tool.uv]\npackage = false",
                true,
            ),
            (
                "[project]\ndependencies = [\"a @ file:///etc/passwd\"]",
                false,
            ),
            (
                "[project.optional-dependencies]\nx = [\"a @ https://host/a\"]",
                false,
            ),
            (
                "[project]\n[dependency-groups]\nx = [\"a\", {include-group = \"y\"}]",
                true,
            ),
            ("[tool.uv.sources]\na = { path = \"/srv/a\" }", false),
            ("[tool.uv]\nfind-links = [\"/\"]", false),
            ("[[tool.uv.index]]\nurl = \"http://localhost\"", false),
        ] {
            assert_eq!(project(text).is_ok(), fine, "{text}");
        }
    }
}
