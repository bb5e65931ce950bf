//! Texts into values, with errors that point at the place.

use std::path::Path;

use imagespec_core::error::BuildError;
use imagespec_core::spec::ImageSpec;
use serde::de::DeserializeOwned;

/// Reads a file that a person wrote.
pub(super) fn read(path: &Path) -> Result<String, BuildError> {
    fs_err::read_to_string(path).map_err(|error| {
        BuildError::input(format!("cannot read the file `{}`", path.display())).caused_by(&error)
    })
}

/// A value from TOML. Errors show the line and point at the place in it.
pub(super) fn from_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, BuildError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        located(text, path, at, error.message())
    })
}

/// The spec of a file of its own: TOML, YAML or JSON, by the file's name.
pub(super) fn spec_file(path: &Path) -> Result<ImageSpec, BuildError> {
    let text = read(path)?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => from_toml(&text, path),
        Some("json") => serde_json::from_str(&text).map_err(|error| {
            let before: usize = text
                .split_inclusive('\n')
                .take(error.line().saturating_sub(1))
                .map(str::len)
                .sum();
            let message = error.to_string();
            let message = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(message, _)| message);
            located(
                &text,
                path,
                before + error.column().saturating_sub(1),
                message,
            )
        }),
        _ => serde_saphyr::from_str(&text).map_err(|error| {
            let message = error.to_string();
            hinted(
                BuildError::input(format!("malformed spec in `{}`", path.display()))
                    .caused_by(&std::io::Error::other(message.clone())),
                &message,
            )
        }),
    }
}

/// An error at a byte of a text: file, line, column, and the line with a mark below the place.
fn located(text: &str, path: &Path, at: usize, message: &str) -> BuildError {
    let at = (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let number = text[..start].matches('\n').count() + 1;
    let column = text[start..at].chars().count() + 1;
    let gutter = number.to_string();
    let shown = format!(
        "{gutter} | {line}\n{} | {}^",
        " ".repeat(gutter.len()),
        " ".repeat(column - 1)
    );
    let first = message.lines().next().unwrap_or(message);
    let error = BuildError::input(format!("{first}, at {}:{number}:{column}", path.display()));
    hinted(error.caused_by(&std::io::Error::other(shown)), message)
}

/// Adds what was probably meant, where the message says what is known.
fn hinted(error: BuildError, message: &str) -> BuildError {
    let Some((_, rest)) = message.split_once("unknown field `") else {
        return error;
    };
    let Some((found, known)) = rest.split_once('`') else {
        return error;
    };
    let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
    match nearest(found, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// The known name that is most like `found`, if one is like it.
pub(super) fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|name| (strsim::damerau_levenshtein(found, name), name));
    scored
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3)
        .map(|(_, name)| name)
}
