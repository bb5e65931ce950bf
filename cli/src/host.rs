//! The machine, read once: the only place that looks at the environment, the home directory and the terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::host::{Host, RegistrySettings};

use crate::env;

/// The first argument with which this program becomes the first process of a sandbox.
pub(crate) const SANDBOX_INIT: &str = "sandbox-init";

/// Takes the snapshot.
pub(crate) fn snapshot(
    registries: BTreeMap<String, RegistrySettings>,
    variables: BTreeMap<String, String>,
) -> Result<Host, BuildError> {
    let home = home();
    let wrong = |what: &str, error: &std::io::Error| {
        BuildError::failed(format!("cannot find {what}")).caused_by(error)
    };
    let cache = cache_dir(&variables, home.as_deref()).ok_or_else(|| {
        BuildError::input("there is no home directory to keep caches in")
            .hint(format!("name a folder: `{}`", env::CACHE_DIR.name))
    })?;
    let cache_dir = std::path::absolute(cache).map_err(|error| wrong("the cache", &error))?;
    let executable =
        std::env::current_exe().map_err(|error| wrong("this program's own file", &error))?;
    Ok(Host {
        variables,
        home,
        cache_dir,
        sandbox_init: vec![executable, PathBuf::from(SANDBOX_INIT)],
        contained: false,
        strangers: false,
        registries,
    })
}

/// The environment, without what is not UTF-8: nothing we read may be.
pub(crate) fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

fn cache_dir(variables: &BTreeMap<String, String>, home: Option<&Path>) -> Option<PathBuf> {
    let given = variables.get(env::CACHE_DIR.name);
    given
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| {
            let caches = absolute(variables, env::XDG_CACHE_HOME.name);
            let caches = caches.or_else(|| Some(home?.join(".cache")));
            caches.map(|caches| caches.join("imagespec"))
        })
}

/// The person's own configuration file. It may not exist.
pub(crate) fn user_config(variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let settings = absolute(variables, env::XDG_CONFIG_HOME.name)
        .or_else(|| home().map(|home| home.join(".config")));
    settings.map(|settings| settings.join("imagespec/config.toml"))
}

fn absolute(variables: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    let path = variables.get(name).map(PathBuf::from);
    path.filter(|path| path.is_absolute())
}

/// The working directory, or the one `-C` names.
pub(crate) fn directory(flag: Option<&Path>) -> Result<PathBuf, BuildError> {
    let named = flag.unwrap_or(Path::new("."));
    let wrong = |error: std::io::Error| {
        let message = format!("cannot work in the folder: `{}`", named.display());
        BuildError::input(message).caused_by(&error)
    };
    let path = std::path::absolute(named).map_err(wrong)?;
    let kind = path.metadata().map_err(wrong)?;
    if kind.is_dir() {
        Ok(path)
    } else {
        Err(wrong(std::io::ErrorKind::NotADirectory.into()))
    }
}

/// Whether a person watches standard error on a terminal that can draw.
pub(crate) fn is_watched() -> bool {
    let dumb = std::env::var_os(env::TERM.name).is_some_and(|term| term == "dumb");
    !dumb && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        of.iter().map(owned).collect()
    }

    #[test]
    fn the_cache_is_where_the_nearest_variable_says() {
        let home = Path::new("/home/me");
        let both = [
            ("IMAGESPEC_CACHE_DIR", "/ours"),
            ("XDG_CACHE_HOME", "/caches"),
        ];
        for (of, expected) in [
            (&both[..], "/ours"),
            (&both[1..], "/caches/imagespec"),
            (
                &[("XDG_CACHE_HOME", "relative")],
                "/home/me/.cache/imagespec",
            ),
            (&[("IMAGESPEC_CACHE_DIR", "")], "/home/me/.cache/imagespec"),
            (&[], "/home/me/.cache/imagespec"),
        ] {
            let found = cache_dir(&variables(of), Some(home));
            assert_eq!(found.as_deref(), Some(Path::new(expected)), "{of:?}");
        }
        assert_eq!(cache_dir(&variables(&[]), None), None);
    }
}
