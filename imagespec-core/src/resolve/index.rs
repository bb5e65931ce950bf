//! Package indexes: URLs without the credentials that may stand in them.

use crate::error::BuildError;
use crate::plan::PackageIndex;
use crate::spec::ImageSpec;

pub(super) fn package_index(spec: &ImageSpec) -> Result<PackageIndex, BuildError> {
    Ok(PackageIndex {
        url: spec
            .pip_index
            .as_deref()
            .map(|url| checked(url, "pip_index"))
            .transpose()?,
        extra_urls: spec
            .pip_extra_index_url
            .iter()
            .flatten()
            .map(|url| checked(url, "pip_extra_index_url"))
            .collect::<Result<_, _>>()?,
        extra_args: split(spec.pip_extra_args.as_deref().unwrap_or_default())?,
    })
}

/// A URL that may stand in a plan: one with a user in it is refused, since a plan is shown, kept and sent.
fn checked(url: &str, field: &str) -> Result<String, BuildError> {
    let authority = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .split('/')
        .next()
        .unwrap_or_default();
    if authority.contains('@') {
        return Err(BuildError::input(format!("`{field}` holds a user or a password"))
            .field(field)
            .hint("keep them in pip's configuration or a netrc file, where the resolver finds them"));
    }
    Ok(url.to_owned())
}

/// Splits arguments as a POSIX shell would, without expanding anything.
fn split(text: &str) -> Result<Vec<String>, BuildError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(
            BuildError::input(format!("a quote is not closed: `{text}`")).field("pip_extra_args"),
        );
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_split_as_in_a_shell() {
        let words = |text| split(text).map_err(|error| error.message);
        assert_eq!(
            words("--a 'b c'  \"d\\\"e\" f\\ g ''"),
            Ok(["--a", "b c", "d\"e", "f g", ""]
                .map(str::to_owned)
                .to_vec())
        );
        assert!(words("'open").is_err());
    }

    #[test]
    fn urls_with_passwords_are_refused_without_showing_them() {
        let spec = ImageSpec {
            pip_index: Some("https://me:secret@index.example/simple".into()),
            ..ImageSpec::default()
        };
        let error = package_index(&spec).expect_err("a password");
        assert!(!format!("{error:?}").contains("secret"));
    }
}
