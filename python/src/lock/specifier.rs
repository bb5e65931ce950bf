//! Requirements and their markers (dependency specifiers, packaging.python.org). Their characters are those of ASCII, on
//! which the library that reads them relies: it slices a text with others where no character begins.

use std::str::FromStr;

use pep508_rs::{MarkerTree, Requirement, VerbatimUrl};

/// A marker, or what is wrong with it.
pub(super) fn marker(text: &str) -> Result<MarkerTree, String> {
    read(text)
}

/// A requirement, or what is wrong with it.
pub(super) fn requirement(text: &str) -> Result<Requirement<VerbatimUrl>, String> {
    read(text)
}

fn read<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    match text.chars().find(|c| !c.is_ascii()) {
        Some(other) => Err(format!(
            "it has a character that is not of ASCII: `{other}`"
        )),
        None => text.parse().map_err(|error: T::Err| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_characters_are_an_error_and_nothing_else() {
        assert!(marker("python_version < \"3.8\" and extra == 'x'").is_ok());
        let error = marker("python_version < \"3.8\"\u{fffd}\u{fffd}").expect_err("no marker");
        assert!(error.contains("ASCII"), "{error}");
        assert!(requirement("idna[x]>=2 ; python_version > '3'").is_ok());
        assert!(requirement("ídna").is_err() && requirement("==").is_err());
    }
}
