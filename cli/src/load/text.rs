//! Texts into values, with errors that point at the place.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use imagespec_core::error::BuildError;
use imagespec_core::place::Place;
use imagespec_core::spec::{FIELDS, ImageSpec};
use serde::de::DeserializeOwned;
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _};

/// The longest file that is read, in bytes. People write kilobytes.
const LIMIT: u64 = 16 << 20;

/// Reads a file that a person wrote.
pub(super) fn read(path: &Path) -> Result<String, BuildError> {
    let unread = || BuildError::input(format!("cannot read the file: `{}`", path.display()));
    let wrong = |error: io::Error| unread().caused_by(&error);
    let mut text = String::new();
    // Not through `fs_err`: the message names the path already.
    let file = File::open(path).map_err(wrong)?;
    file.take(LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(wrong)?;
    if text.len() as u64 > LIMIT {
        return Err(unread().hint(format!(
            "it has more than {LIMIT} bytes; is it a declaration?"
        )));
    }
    Ok(text)
}

/// A value from TOML. Errors show the line and point at the place in it.
pub(super) fn from_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, BuildError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        malformed(&Place::at(text, at), path, error.message())
    })
}

/// The spec of a file of its own: TOML, JSON or YAML, by the file's name.
pub(super) fn spec_file(path: &Path) -> Result<ImageSpec, BuildError> {
    let text = read(path)?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => from_toml(&text, path),
        Some("json") => from_json(&text, path),
        _ => from_yaml(&text, path),
    }
}

fn from_json(text: &str, path: &Path) -> Result<ImageSpec, BuildError> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        // serde_json ends its messages with the place.
        let message = message
            .rsplit_once(" at line ")
            .map_or(message.as_str(), |(message, _)| message);
        let place = Place::of(text, error.line(), error.column());
        malformed(&place, path, message)
    })
}

fn from_yaml(text: &str, path: &Path) -> Result<ImageSpec, BuildError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let message = yaml_message(error.without_snippet());
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let place = match error.location() {
            Some(found) => Place::of(text, number(found.line()), number(found.column())),
            None => Place::at(text, 0),
        };
        malformed(&place, path, &message)
    })
}

/// The message of a YAML error, with what is known where the parser only keeps it.
fn yaml_message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{SerdeUnknownField, SerdeUnknownVariant};
    let message = DefaultMessageFormatter.format_message(error).into_owned();
    let (SerdeUnknownField { expected, .. } | SerdeUnknownVariant { expected, .. }) = error else {
        return message;
    };
    let found = message.split('`').nth(1).unwrap_or_default();
    let kind = if matches!(error, SerdeUnknownField { .. }) {
        "field"
    } else {
        "variant"
    };
    let known: Vec<_> = expected.iter().map(|known| format!("`{known}`")).collect();
    format!(
        "unknown {kind} `{found}`, expected one of {}",
        known.join(", ")
    )
}

/// The error at a place of a file: where it is, what it is, the line with a mark below the place, and what was
/// probably meant.
fn malformed(place: &Place<'_>, path: &Path, message: &str) -> BuildError {
    let (summary, hints) = explained(message);
    let error = place.error("malformed declaration", path, &summary, 1);
    hints.into_iter().fold(error, BuildError::hint)
}

/// A parser's message without the list of what it knows, and hints made of that list.
fn explained(message: &str) -> (String, Vec<String>) {
    let first = message.lines().next().unwrap_or(message);
    if first.contains("expected a version in quotes") {
        let hint = "put the version in quotes: as a number, `3.10` would be `3.1`";
        return (first.to_owned(), vec![hint.to_owned()]);
    }
    for kind in ["field", "variant"] {
        let Some((_, rest)) = first.split_once(&format!("unknown {kind} `")) else {
            continue;
        };
        let Some((found, known)) = rest.split_once('`') else {
            continue;
        };
        let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        let mut hints = Vec::new();
        if let Some(near) = nearest(found, known.iter().copied()) {
            hints.push(format!("did you mean `{near}`?"));
        } else if known == super::project::FIELDS && FIELDS.contains(&found) {
            hints.push(format!("`{found}` belongs into a table `[images.NAME]`"));
        }
        if !known.is_empty() {
            let (noun, list) = (
                if kind == "field" { "fields" } else { "values" },
                known.join(", "),
            );
            hints.push(format!("known {noun}: {list}"));
        }
        let kind = if kind == "field" { kind } else { "value" };
        return (format!("unknown {kind} `{found}`"), hints);
    }
    // The rest speaks to programmers.
    let summary = first.split(", set DuplicateKeyPolicy").next();
    (summary.unwrap_or(first).to_owned(), Vec::new())
}

/// The known name that is most like `found`, if one is like it.
pub(super) fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|name| (strsim::damerau_levenshtein(found, name), name));
    scored
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3 && *distance < name.len())
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &BuildError) -> String {
        let cause = error.source.as_ref().expect("a cause");
        let hints = error.hints.join("\n");
        format!("{}\n{}\n{hints}", error.message, cause.message)
    }

    fn toml(text: &str) -> String {
        told(&from_toml::<ImageSpec>(text, Path::new("a.toml")).expect_err(text))
    }

    #[test]
    fn toml_errors_point_at_the_place() {
        insta::assert_snapshot!(toml("name = \"a\"\npakages = []\n"), @r"
    malformed declaration: `a.toml:2:1`
    unknown field `pakages`
      |
    2 | pakages = []
      | ^
    did you mean `packages`?
    known fields: name, python_version, builder, source_root, env, registry, packages, conda_packages, conda_channels, requirements, apt_packages, cuda, cudnn, base_image, platform, pip_index, pip_extra_index_url, pip_secret_mounts, pip_extra_args, registry_config, entrypoint, commands, tag_format, source_copy_mode, copy, python_exec, runtime_packages, builder_options, builder_config
    ");
        insta::assert_snapshot!(toml("name = \"a\"\n  packages = [\"ü\", 1]"), @r#"
    malformed declaration: `a.toml:2:20`
    invalid type: integer `1`, expected a string
      |
    2 |   packages = ["ü", 1]
      |                    ^
    "#);
        insta::assert_snapshot!(toml("name = \"a"), @r#"
    malformed declaration: `a.toml:1:10`
    invalid basic string, expected `"`
      |
    1 | name = "a
      |          ^
    "#);
        insta::assert_snapshot!(toml("source_copy_mode = \"al\""), @r#"
    malformed declaration: `a.toml:1:20`
    unknown value `al`
      |
    1 | source_copy_mode = "al"
      |                    ^
    did you mean `all`?
    known values: loaded_modules, all, no_copy
    "#);
    }

    #[test]
    fn yaml_errors_point_at_the_place() {
        let yaml = |text| told(&from_yaml(text, Path::new("a.yaml")).expect_err(text));
        insta::assert_snapshot!(yaml("name: a\npython_version: 3.10\n"), @r#"
    malformed declaration: `a.yaml:2:1`
    invalid type: floating point `3.1`, expected a version in quotes, such as "3.11"
      |
    2 | python_version: 3.10
      | ^
    put the version in quotes: as a number, `3.10` would be `3.1`
    "#);
        insta::assert_snapshot!(yaml("name: a\npakages: []\n"), @r"
    malformed declaration: `a.yaml:2:1`
    unknown field `pakages`
      |
    2 | pakages: []
      | ^
    did you mean `packages`?
    known fields: name, python_version, builder, source_root, env, registry, packages, conda_packages, conda_channels, requirements, apt_packages, cuda, cudnn, base_image, platform, pip_index, pip_extra_index_url, pip_secret_mounts, pip_extra_args, registry_config, entrypoint, commands, tag_format, source_copy_mode, copy, python_exec, runtime_packages, builder_options, builder_config
    ");
        insta::assert_snapshot!(yaml("source_copy_mode: al\n"), @r"
    malformed declaration: `a.yaml:1:1`
    unknown value `al`
      |
    1 | source_copy_mode: al
      | ^
    did you mean `all`?
    known values: loaded_modules, all, no_copy
    ");
        insta::assert_snapshot!(yaml("name: [a\n"), @r"
    malformed declaration: `a.yaml:1:7`
    expected string scalar
      |
    1 | name: [a
      |       ^
    ");
        insta::assert_snapshot!(yaml("name: a\nname: b\n"), @r"
    malformed declaration: `a.yaml:2:1`
    duplicate mapping key: name
      |
    2 | name: b
      | ^
    ");
    }

    #[test]
    fn json_errors_point_at_the_place() {
        let json = |text| told(&from_json(text, Path::new("a.json")).expect_err(text));
        insta::assert_snapshot!(json("{\"name\": \"a\",\n \"pakages\": []}"), @r#"
    malformed declaration: `a.json:2:10`
    unknown field `pakages`
      |
    2 |  "pakages": []}
      |          ^
    did you mean `packages`?
    known fields: name, python_version, builder, source_root, env, registry, packages, conda_packages, conda_channels, requirements, apt_packages, cuda, cudnn, base_image, platform, pip_index, pip_extra_index_url, pip_secret_mounts, pip_extra_args, registry_config, entrypoint, commands, tag_format, source_copy_mode, copy, python_exec, runtime_packages, builder_options, builder_config
    "#);
        insta::assert_snapshot!(json("{\"python_version\": 3.9}"), @r#"
    malformed declaration: `a.json:1:22`
    invalid type: floating point `3.9`, expected a version in quotes, such as "3.11"
      |
    1 | {"python_version": 3.9}
      |                      ^
    put the version in quotes: as a number, `3.10` would be `3.1`
    "#);
        insta::assert_snapshot!(json("{"), @r"
    malformed declaration: `a.json:1:1`
    EOF while parsing an object
      |
    1 | {
      | ^
    ");
    }

    #[test]
    fn all_forms_say_the_same() {
        let toml: ImageSpec = from_toml(
            "python_version = \"3.11\"\npackages = [\"a\"]\n[env]\nB = \"1\"\nA = \"2\"\n",
            Path::new("a"),
        )
        .expect("TOML");
        let yaml = from_yaml(
            "python_version: \"3.11\"\npackages: [a]\nenv:\n  B: \"1\"\n  A: \"2\"\n",
            Path::new("a"),
        );
        let json = from_json(
            "{\"python_version\": \"3.11\", \"packages\": [\"a\"], \"env\": {\"B\": \"1\", \"A\": \"2\"}}",
            Path::new("a"),
        );
        assert_eq!(yaml.as_ref(), Ok(&toml));
        assert_eq!(json.as_ref(), Ok(&toml));
    }

    #[test]
    fn only_what_is_alike_is_meant() {
        let known = || ["say-hello", "child"].into_iter();
        assert_eq!(nearest("sayhello", known()), Some("say-hello"));
        assert_eq!(nearest("chidl", known()), Some("child"));
        assert_eq!(nearest("other", known()), None);
    }
}
