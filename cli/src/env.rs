//! Every environment variable the command reads, each with what it means.
//!
//! Builders read further ones from the [`Host`](imagespec_core::host::Host) snapshot: the machine's proxy, pip's and
//! uv's settings, and Docker's.

/// A variable: its name, and what it means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// A line on what it means.
    pub(crate) meaning: &'static str,
}

const fn variable(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, meaning }
}

/// Loses to `--builder` and to a spec's `builder`.
pub(crate) const BUILDER: Variable =
    variable("IMAGESPEC_BUILDER", "builder of images that name none");
/// Loses to `--deployment`.
pub(crate) const DEPLOYMENT: Variable = variable("IMAGESPEC_DEPLOYMENT", "the active deployment");
/// Loses to `--registry`.
pub(crate) const REGISTRY: Variable = variable("IMAGESPEC_REGISTRY", "registry of all images");
/// Wins over `XDG_CACHE_HOME`.
pub(crate) const CACHE_DIR: Variable = variable(
    "IMAGESPEC_CACHE_DIR",
    "folder of the caches and the local image store",
);
/// A path relative to the working directory.
pub(crate) const CONFIG: Variable = variable(
    "IMAGESPEC_CONFIG",
    "the project's file, instead of the nearest imagespec.toml",
);
/// Counts where it is an absolute path, as the XDG base directory specification says.
pub(crate) const XDG_CACHE_HOME: Variable = variable(
    "XDG_CACHE_HOME",
    "folder of caches; ours is `imagespec` in it",
);
/// Counts where it is an absolute path, as the XDG base directory specification says.
pub(crate) const XDG_CONFIG_HOME: Variable = variable(
    "XDG_CONFIG_HOME",
    "folder of settings; ours are `imagespec/config.toml` in it",
);
/// Read by builder `union`.
pub(crate) const ENDPOINT: Variable = variable(
    "IMAGESPEC_ENDPOINT",
    "URL of the build service, for builder `union`",
);
/// Read by builder `union`.
pub(crate) const TOKEN: Variable = variable(
    "IMAGESPEC_TOKEN",
    "token for the build service, for builder `union`",
);
/// Loses to `--database`.
pub(crate) const DATABASE: Variable = variable(
    "IMAGESPEC_DATABASE",
    "URL of the database of `imagespec serve`",
);
/// Loses to `--platform-command`.
pub(crate) const PLATFORM_COMMAND: Variable = variable(
    "IMAGESPEC_PLATFORM_COMMAND",
    "command of the platform, for `run` and `register`",
);
/// flytekit's `--force`.
pub(crate) const FORCE: Variable = variable(
    "FLYTE_FORCE_PUSH_IMAGE_SPEC",
    "build even what exists, as with --force",
);
/// flytekit's `--on-unknown fail`.
pub(crate) const FAST_FAIL: Variable = variable(
    "FLYTE_IMG_FAST_FAIL",
    "stop when nobody can tell whether an image exists, whatever --on-unknown says",
);
/// flytekit pushes only where it is unset, `true` or `1`.
pub(crate) const PUSH: Variable = variable(
    "FLYTE_PUSH_IMAGE_SPEC",
    "anything but `true` or `1` keeps images here that have a registry",
);
/// See <https://no-color.org>.
pub(crate) const NO_COLOR: Variable = variable("NO_COLOR", "no colours");
/// Handed to commands that `exec` runs; a `dumb` terminal shows no live progress.
pub(crate) const TERM: Variable = variable("TERM", "the kind of terminal");

/// All of them, as `--help` lists them.
pub(crate) const ALL: [Variable; 16] = [
    BUILDER,
    DEPLOYMENT,
    REGISTRY,
    CACHE_DIR,
    CONFIG,
    ENDPOINT,
    TOKEN,
    DATABASE,
    PLATFORM_COMMAND,
    FORCE,
    FAST_FAIL,
    PUSH,
    XDG_CACHE_HOME,
    XDG_CONFIG_HOME,
    NO_COLOR,
    TERM,
];

/// The list for `--help`: a variable a line.
pub(crate) fn listing() -> String {
    let width = ALL.iter().map(|variable| variable.name.len()).max();
    let width = width.unwrap_or_default();
    let line = |variable: &Variable| format!("  {:<width$}  {}\n", variable.name, variable.meaning);
    ALL.iter().map(line).collect()
}

/// Whether a text says yes, as flytekit's `str2bool` reads it: whatever is not `false`, `0`, `off` or `no`.
pub(crate) fn says_yes(text: &str) -> bool {
    !["false", "0", "off", "no"].contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a text is one of the two with which flytekit pushes.
pub(crate) fn says_push(text: &str) -> bool {
    ["true", "1"].contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_what_they_mean_to_flytekit() {
        for yes in ["true", "True", "1", "yes", "anything"] {
            assert!(says_yes(yes), "{yes}");
        }
        for no in ["false", "False", "0", "off", "NO"] {
            assert!(!says_yes(no), "{no}");
            assert!(!says_push(no), "{no}");
        }
        assert!(says_push("True") && says_push("1"));
        assert!(!says_push("yes"));
    }

    #[test]
    fn names_are_listed_once() {
        let mut names: Vec<_> = ALL.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
