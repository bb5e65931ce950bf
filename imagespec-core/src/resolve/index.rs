//! Package indexes: URLs without the credentials that may stand in them.

use crate::error::BuildError;
use crate::plan::PackageIndex;
use crate::spec::ImageSpec;

pub(super) fn package_index(spec: &ImageSpec) -> Result<PackageIndex, BuildError> {
    let url = |url: &String, field| {
        if has_login(url) {
            return Err(login(field));
        }
        Ok(url.clone())
    };
    let extra_args = split(spec.pip_extra_args.as_deref().unwrap_or_default())?;
    if extra_args.iter().any(|arg| has_login(arg)) {
        return Err(login("pip_extra_args"));
    }
    let extra_urls = spec.pip_extra_index_url.iter().flatten();
    Ok(PackageIndex {
        url: spec
            .pip_index
            .as_ref()
            .map(|index| url(index, "pip_index"))
            .transpose()?,
        extra_urls: extra_urls
            .map(|index| url(index, "pip_extra_index_url"))
            .collect::<Result<_, _>>()?,
        extra_args,
    })
}

/// Whether a URL, alone or at the end of an argument, has a user in it. A plan has none: it is shown, kept and
/// sent. Links to version control (`git+ssh://git@host`) name a user that is no secret.
fn has_login(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let login = authority.rsplit_once('@').map(|(login, _)| login);
    login.is_some_and(|login| !scheme.ends_with("ssh") || login.contains(':'))
}

fn login(field: &str) -> BuildError {
    BuildError::input(format!("`{field}` holds a user or a password"))
        .field(field)
        .hint("keep them in pip's configuration or a netrc file, where the resolver finds them")
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
            words("--a 'b c'  \"d\\\"e\" f\\ g '' \"\\x\""),
            Ok(["--a", "b c", "d\"e", "f g", "", "\\x"]
                .map(str::to_owned)
                .to_vec())
        );
        assert!(words("'open").is_err());
    }

    #[test]
    fn logins_are_refused_without_showing_them() {
        let url = "https://me:secret@index.example/simple".to_owned();
        let spec = ImageSpec::default;
        for (field, spec) in [
            (
                "pip_index",
                ImageSpec {
                    pip_index: Some(url.clone()),
                    ..spec()
                },
            ),
            (
                "pip_extra_index_url",
                ImageSpec {
                    pip_extra_index_url: Some(vec![url.clone()]),
                    ..spec()
                },
            ),
            (
                "pip_extra_args",
                ImageSpec {
                    pip_extra_args: Some(format!("--pre --find-links={url}")),
                    ..spec()
                },
            ),
        ] {
            let error = package_index(&spec).expect_err("a password");
            assert_eq!(error.field.as_deref(), Some(field));
            assert!(!format!("{error:?}").contains("secret"), "{field}");
        }
        for plain in [
            "https://index.example/a@b",
            "https://index.example?a@b",
            "git+ssh://git@host.example/x",
            "a@b",
        ] {
            assert!(!has_login(plain), "{plain}");
        }
        assert!(has_login("https://token@index.example"));
        assert!(has_login("git+ssh://me:secret@host.example/x"));
    }
}
