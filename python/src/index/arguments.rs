//! Arguments that a person gives the installer, as far as they say what is resolved.

use imagespec_core::error::BuildError;
use imagespec_core::plan::PackageIndex;

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
const KNOWN: &[&str] = &[
    "--pre",
    "--no-deps",
    "--no-index",
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--trusted-host",
    "--index-strategy",
    "--prerelease",
    "--resolution",
    "--exclude-newer",
    "--torch-backend",
    "--keyring-provider",
    "--only-binary",
    "--prefer-binary",
    "--no-cache-dir",
    "--upgrade",
    "--quiet",
    "--verbose",
    "--no-compile",
    "--compile-bytecode",
    "--retries",
    "--timeout",
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
        "--prefer-binary"
        | "--no-cache-dir"
        | "--no-cache"
        | "-n"
        | "--upgrade"
        | "-U"
        | "--quiet"
        | "-q"
        | "--verbose"
        | "-v"
        | "--no-compile"
        | "--no-compile-bytecode"
        | "--compile-bytecode"
        | "--disable-pip-version-check"
        | "--break-system-packages"
        | "--no-color"
        | "--no-progress"
        | "--no-warn-script-location"
        | "--require-hashes"
        | "--no-build" => Meaning::Nothing,
        "--only-binary" | "--retries" | "--timeout" | "--default-timeout" | "--progress-bar"
        | "--root-user-action" | "--link-mode" => Meaning::NoValue,
        _ => return None,
    })
}

/// The index that a declaration asks for once its `pip_extra_args` are read too, and what is left of them for uv.
pub(crate) fn arguments(
    declared: &PackageIndex,
) -> Result<(PackageIndex, Vec<String>), BuildError> {
    let wrong = |message: String| BuildError::input(message).field("pip_extra_args");
    let mut index = PackageIndex {
        extra_args: Vec::new(),
        ..declared.clone()
    };
    let mut options = Vec::new();
    let mut arguments = declared.extra_args.iter();
    while let Some(argument) = arguments.next() {
        let (option, attached) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let meaning = meaning(option).ok_or_else(|| {
            let error = wrong(format!(
                "unknown option of the package installer: `{}`",
                super::redacted(option)
            ));
            error.hint(format!("known options: {}", KNOWN.join(" ")))
        })?;
        let mut value = || {
            let value = attached.clone().or_else(|| arguments.next().cloned());
            value.ok_or_else(|| wrong(format!("the option has no value: `{option}`")))
        };
        match meaning {
            Meaning::Nothing => {}
            Meaning::NoValue => drop(value()?),
            Meaning::Flag(flag) => options.push(flag.to_owned()),
            Meaning::Value(flag) => options.push(format!("{flag}={}", value()?)),
            Meaning::Index => index.url = Some(value()?),
            Meaning::Extra => index.extra_urls.push(value()?),
        }
    }
    Ok((index, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &[&str]) -> Result<(PackageIndex, Vec<String>), BuildError> {
        let extra_args = written.iter().map(ToString::to_string).collect();
        arguments(&PackageIndex {
            extra_args,
            ..PackageIndex::default()
        })
    }

    #[test]
    fn options_of_both_installers_become_options_of_uv() {
        let written = [
            "--pre",
            "-f",
            "wheels",
            "--index-strategy=unsafe-best-match",
            "--no-cache-dir",
            "--retries",
            "3",
        ];
        let (_, options) = read(&written).unwrap();
        assert_eq!(
            options,
            [
                "--prerelease=allow",
                "--find-links=wheels",
                "--index-strategy=unsafe-best-match"
            ]
        );
        let (index, options) = read(&[
            "-i",
            "https://a.invalid/simple",
            "--extra-index-url=https://b.invalid",
        ])
        .unwrap();
        assert_eq!(index.url.as_deref(), Some("https://a.invalid/simple"));
        assert_eq!(index.extra_urls, ["https://b.invalid"]);
        assert!(options.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let error = read(&["--user"]).unwrap_err();
        assert_eq!(
            error.message,
            "unknown option of the package installer: `--user`"
        );
        assert!(read(&["--find-links"]).is_err());
        for option in KNOWN {
            assert!(meaning(option).is_some(), "{option}");
        }
    }
}
