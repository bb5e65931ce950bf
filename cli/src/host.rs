//! The machine, read once: the only place that looks at the environment and the home directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::host::{Host, RegistrySettings};

/// The first argument with which this program becomes the first process of a sandbox.
pub(crate) const SANDBOX_INIT: &str = "sandbox-init";
/// Takes the snapshot.
pub(crate) fn snapshot(registries: BTreeMap<String, RegistrySettings>) -> Result<Host, BuildError> {
    let variables: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let given = |name: &str| {
        variables
            .get(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = given("IMAGESPEC_CACHE_DIR")
        .or_else(|| {
            given("XDG_CACHE_HOME")
                .filter(|path| path.is_absolute())
                .map(|path| path.join("imagespec"))
        })
        .or_else(|| home.as_ref().map(|home| home.join(".cache/imagespec")));
    let cache = cache.ok_or_else(|| {
        BuildError::input("there is no home directory to keep caches in")
            .hint("name a folder: `IMAGESPEC_CACHE_DIR`")
    })?;
    let wrong = |what: &str, error: &std::io::Error| {
        BuildError::failed(format!("cannot find {what}")).caused_by(error)
    };
    let cache_dir = std::path::absolute(cache).map_err(|error| wrong("the cache", &error))?;
    let executable =
        std::env::current_exe().map_err(|error| wrong("this program's own file", &error))?;
    let sandbox_init = vec![executable, PathBuf::from(SANDBOX_INIT)];
    Ok(Host {
        variables,
        home,
        cache_dir,
        sandbox_init,
        registries,
    })
}

/// The person's own configuration file.
pub(crate) fn user_config() -> Option<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    Some(config.or_else(home)?.join("imagespec/config.toml"))
}

/// The working directory, or the one `-C` names.
pub(crate) fn directory(flag: Option<&Path>) -> Result<PathBuf, BuildError> {
    let wrong = |error: std::io::Error| {
        let shown = flag.unwrap_or(Path::new(".")).display();
        BuildError::input(format!("cannot work in the folder `{shown}`")).caused_by(&error)
    };
    let path = std::path::absolute(flag.unwrap_or(Path::new("."))).map_err(wrong)?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(wrong(std::io::ErrorKind::NotADirectory.into()))
    }
}
