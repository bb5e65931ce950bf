//! Arguments that a person gives the installer, as far as they say what is resolved.

use crate::lock::LockError;

/// What an option means to a resolution.
enum Meaning {
    /// It says something about installing only.
    Nothing,
    /// The same as this option of uv.
    Flag(&'static str),
    /// The same as this option of uv, with the value that follows.
    Value(&'static str),
    /// As [`Meaning::Nothing`], with a value.
    NoValue,
    /// One more URL of an index.
    Extra,
    /// The URL of the index.
    Index,
}

/// Every option that is understood, with its short form.
pub const KNOWN_ARGUMENTS: &[&str] = &[
    "--pre", "--no-deps", "--no-index", "--index-url", "--extra-index-url", "--find-links", "--trusted-host",
    "--index-strategy", "--prerelease", "--resolution", "--exclude-newer", "--torch-backend",
    "--keyring-provider", "--only-binary", "--prefer-binary", "--no-cache-dir", "--upgrade", "--quiet",
    "--verbose", "--no-compile", "--compile-bytecode", "--retries", "--timeout",
];

fn meaning(option: &str) -> Option<Meaning> {
    Some(match option {
        "--pre" => Meaning::Flag("--prerelease=allow"),
        "--no-deps" => Meaning::Flag("--no-deps"),
        "--no-index" => Meaning::Flag("--no-index"),
        "--index-url" | "-i" | "--default-index" => Meaning::Index,
        "--extra-index-url" | "--index" => Meaning::Extra,
        "--find-links" | "-f" => Meaning::Value("--find-links"),
        "--trusted-host" | "--allow-insecure-host" => Meaning::Value("--allow-insecure-host"),
        "--index-strategy" => Meaning::Value("--index-strategy"),
        "--prerelease" => Meaning::Value("--prerelease"),
        "--resolution" => Meaning::Value("--resolution"),
        "--exclude-newer" => Meaning::Value("--exclude-newer"),
        "--torch-backend" => Meaning::Value("--torch-backend"),
        "--keyring-provider" => Meaning::Value("--keyring-provider"),
        "--prefer-binary" | "--no-cache-dir" | "--no-cache" | "-n" | "--upgrade" | "-U" | "--quiet" | "-q"
        | "--verbose" | "-v" | "--no-compile" | "--no-compile-bytecode" | "--compile-bytecode"
        | "--disable-pip-version-check" | "--break-system-packages" | "--no-color" | "--no-progress"
        | "--no-warn-script-location" | "--require-hashes" | "--no-build" => Meaning::Nothing,
        "--only-binary" | "--retries" | "--timeout" | "--default-timeout" | "--progress-bar"
        | "--root-user-action" | "--link-mode" => Meaning::NoValue,
        _ => return None,
    })
}

/// Arguments, sorted out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// For uv, as they are.
    pub(super) uv: Vec<String>,
    pub(super) index: Option<String>,
    pub(super) extra: Vec<String>,
}

impl Arguments {
    pub(super) fn read(arguments: &[String]) -> Result<Self, LockError> {
        let mut out = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (option, attached) = match argument.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let meaning = meaning(option).ok_or_else(|| LockError::Argument(super::redact(option)))?;
            let mut value = || {
                let value = attached.clone().or_else(|| arguments.next().cloned());
                value.ok_or_else(|| LockError::ArgumentValue(option.to_owned()))
            };
            match meaning {
                Meaning::Nothing => {}
                Meaning::NoValue => drop(value()?),
                Meaning::Flag(flag) => out.uv.push(flag.to_owned()),
                Meaning::Value(flag) => out.uv.push(format!("{flag}={}", value()?)),
                Meaning::Index => out.index = Some(value()?),
                Meaning::Extra => out.extra.push(value()?),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Arguments, LockError> {
        Arguments::read(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_of_both_installers_become_options_of_uv() {
        let found = read(&["--pre", "-f", "wheels", "--index-strategy=unsafe-best-match", "--no-cache-dir", "--retries", "3"]).unwrap();
        assert_eq!(found.uv, ["--prerelease=allow", "--find-links=wheels", "--index-strategy=unsafe-best-match"]);
        let found = read(&["-i", "https://a.invalid/simple", "--extra-index-url=https://b.invalid/simple"]).unwrap();
        assert_eq!(found.index.as_deref(), Some("https://a.invalid/simple"));
        assert_eq!(found.extra, ["https://b.invalid/simple"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(matches!(read(&["--user"]), Err(LockError::Argument(option)) if option == "--user"));
        assert!(matches!(read(&["--find-links"]), Err(LockError::ArgumentValue(_))));
        for option in KNOWN_ARGUMENTS {
            assert!(meaning(option).is_some(), "{option}");
        }
    }
}
