//! Package indexes: URLs without the credentials that may stand in them.

use super::sources::Inputs;
use crate::error::BuildError;
use crate::login::redacted;
use crate::plan::PackageIndex;
use crate::spec::ImageSpec;

pub(super) fn package_index(
    spec: &ImageSpec,
    inputs: &mut Inputs<'_>,
) -> Result<PackageIndex, BuildError> {
    let extra_args = split(spec.pip_extra_args.as_deref().unwrap_or_default())?;
    let extra_urls = spec.pip_extra_index_url.iter().flatten();
    Ok(PackageIndex {
        url: spec.pip_index.as_ref().map(|url| inputs.strip(url)),
        extra_urls: extra_urls.map(|url| inputs.strip(url)).collect(),
        extra_args: extra_args.iter().map(|arg| inputs.strip(arg)).collect(),
    })
}

/// Splits arguments by the rules of Python's `shlex.split`: a POSIX shell's, without expanding anything.
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
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some('"'), '\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => word.get_or_insert_default().push(c),
                next => word
                    .get_or_insert_default()
                    .extend(['\\'].into_iter().chain(next)),
            },
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(
            BuildError::input(format!("a quote is not closed: `{}`", redacted(text)))
                .field("pip_extra_args"),
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
            words("--a 'b c'  \"d\\\"e\" f\\ g '' \"\\x\""),
            Ok(["--a", "b c", "d\"e", "f g", "", "\\x"]
                .map(str::to_owned)
                .to_vec())
        );
        assert!(words("'open").is_err());
    }
}
