//! Locks that do not say whose a package is: it is wanted when the project reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use pep508_rs::{ExtraName, MarkerEnvironment, VersionOrUrl};
use toml::{Table, Value};

use super::constraint::satisfies;
use super::{Package, normalised};
use crate::lock::specifier::{marker, requirement};

/// A requirement of the project or of a package, once its markers are known to hold.
struct Wanted {
    name: String,
    constraint: String,
    extras: BTreeSet<String>,
}

/// The packages reached from the project's own dependencies, in the order of the lock.
pub(super) fn reached<'a>(
    packages: &'a [Package],
    pyproject: &Table,
    env: &MarkerEnvironment,
) -> Vec<&'a Package> {
    let mut open = roots(pyproject, env);
    let mut reached: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    while let Some(wanted) = open.pop() {
        let fits = |package: &Package| {
            normalised(&package.name) == wanted.name
                && satisfies(&package.version, &wanted.constraint)
        };
        for (at, package) in packages
            .iter()
            .enumerate()
            .filter(|(_, package)| fits(package))
        {
            let known = reached.get(&at);
            if known.is_some_and(|known| wanted.extras.is_subset(known)) {
                continue;
            }
            let extras = reached.entry(at).or_default();
            extras.extend(wanted.extras.iter().cloned());
            open.extend(dependencies(package, extras, env));
        }
    }
    reached.into_keys().map(|at| &packages[at]).collect()
}

fn roots(pyproject: &Table, env: &MarkerEnvironment) -> Vec<Wanted> {
    let project = pyproject
        .get("project")
        .and_then(|project| project.get("dependencies")?.as_array());
    let project = project.into_iter().flatten().filter_map(Value::as_str);
    let mut roots: Vec<_> = project.filter_map(|text| specifier(text, env)).collect();
    let poetry = pyproject
        .get("tool")
        .and_then(|tool| tool.get("poetry")?.get("dependencies")?.as_table());
    for (name, value) in poetry
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "python")
    {
        let optional = |value: &Value| value.get("optional").and_then(Value::as_bool) == Some(true);
        let wanted = each(value).filter(|value| !optional(value));
        roots.extend(wanted.filter_map(|value| read(name, value, &[], env)));
    }
    roots
}

/// What a package wants with some of its extras.
fn dependencies(
    package: &Package,
    extras: &BTreeSet<String>,
    env: &MarkerEnvironment,
) -> Vec<Wanted> {
    let names: Vec<_> = extras
        .iter()
        .filter_map(|extra| ExtraName::from_str(extra).ok())
        .collect();
    let mut enabled = BTreeSet::new();
    for (_, requirements) in package
        .extras
        .iter()
        .filter(|(extra, _)| extras.contains(&normalised(extra)))
    {
        let name = |text: &String| {
            let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
            normalised(&text[..end.unwrap_or(text.len())])
        };
        enabled.extend(requirements.iter().map(name));
    }
    let mut wanted = Vec::new();
    for (name, value) in &package.dependencies {
        let optional = |value: &Value| value.get("optional").and_then(Value::as_bool) == Some(true);
        let on = |value: &&Value| !optional(value) || enabled.contains(&normalised(name));
        wanted.extend(
            each(value)
                .filter(on)
                .filter_map(|value| read(name, value, &names, env)),
        );
    }
    wanted
}

/// One requirement, or each of several.
fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice)
        .iter()
}

/// A requirement as Poetry writes it: a constraint, or a table; `None` where it does not apply.
fn read(
    name: &str,
    value: &Value,
    extras: &[ExtraName],
    env: &MarkerEnvironment,
) -> Option<Wanted> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let marker = text("markers").and_then(|text| marker(text).ok());
    let holds = marker.is_none_or(|marker| marker.evaluate(env, extras));
    let python = text("python")
        .is_none_or(|python| satisfies(&env.python_full_version().to_string(), python));
    let platform = text("platform").is_none_or(|platform| platform == env.sys_platform());
    let inner = value
        .get("extras")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    (holds && python && platform).then(|| Wanted {
        name: normalised(name),
        constraint: value.as_str().or(text("version")).unwrap_or("*").to_owned(),
        extras: inner.filter_map(Value::as_str).map(normalised).collect(),
    })
}

/// A requirement as `[project]` writes it.
fn specifier(text: &str, env: &MarkerEnvironment) -> Option<Wanted> {
    let requirement = requirement(text).ok()?;
    requirement.evaluate_markers(env, &[]).then(|| Wanted {
        name: normalised(requirement.name.as_ref()),
        constraint: match &requirement.version_or_url {
            Some(VersionOrUrl::VersionSpecifier(specifiers)) => specifiers.to_string(),
            _ => "*".to_owned(),
        },
        extras: requirement
            .extras
            .iter()
            .map(|extra| normalised(extra.as_ref()))
            .collect(),
    })
}
