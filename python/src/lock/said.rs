//! What uv says when it cannot resolve, in the words of a declaration.

use std::path::Path;

use imagespec_core::error::{BuildError, Cause};

use crate::index::redacted;

/// Marks of failures that are nobody's writing.
const UNREACHABLE: [&str; 5] = [
    "Failed to fetch",
    "error sending request",
    "dns error",
    "Could not connect",
    "client error (Connect)",
];

/// How many of the last lines of a build that failed are repeated.
const LINES: usize = 40;
/// What builds say where a program or a header is missing.
const NO_COMPILER: [&str; 6] = [
    "gcc'",
    "g++'",
    "cc: not found",
    "Python.h",
    "Unknown compiler",
    "No C compiler",
];
const COMPILER: &str =
    "a compiler may be missing: `apt_packages = [\"gcc\", \"libc6-dev\", \"python3-dev\"]`";
const GIT: &str = "git may be missing: `apt_packages = [\"git\"]`";

/// The error where something has no wheel, and nothing can be built.
pub(super) fn source_only(package: &str) -> BuildError {
    let error = BuildError::input(format!("only a source distribution suits: `{package}`"));
    error.hint("choose a version of the package that has a wheel, or a builder that builds others")
}

/// The error where the build of a source distribution fails, with what it said last.
pub fn build_error(package: &str, said: &str) -> BuildError {
    let said = redacted(said);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
    let mut error = BuildError::failed(format!("cannot build `{package}` from source"));
    if NO_COMPILER.iter().any(|mark| said.contains(mark)) {
        error = error.hint(COMPILER);
    }
    if said.contains("Git executable not found") || said.contains("'git'") {
        error = error.hint(GIT);
    }
    error.caused_by(&std::io::Error::other(last))
}

/// uv's error, its causes and its hints, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    text: String,
}

impl Said {
    pub(super) fn read(stderr: &str) -> Self {
        let text = redacted(stderr);
        let mut said = Self {
            message: String::new(),
            causes: Vec::new(),
            hints: Vec::new(),
            text: text.clone(),
        };
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with("warning: "))
        {
            let trimmed = line.trim();
            let after = |mark: &str| {
                trimmed
                    .strip_prefix(mark)
                    .map(|rest| rest.trim().to_owned())
            };
            if let Some(hint) = after("hint: ") {
                said.hints.push(hint);
            } else if let Some(cause) = after("cause: ").or_else(|| after("Caused by: ")) {
                said.causes.push(cause);
            } else if let Some(message) = after("error: ").filter(|_| said.message.is_empty()) {
                said.message = message;
            } else if trimmed.chars().any(|c| !"^~| ".contains(c)) {
                let last = said.causes.last_mut().unwrap_or(&mut said.message);
                if !last.is_empty() {
                    last.push(' ');
                }
                last.push_str(trimmed);
            }
        }
        said
    }

    /// Whether there is no interpreter that could say what the packages depend on.
    pub(super) fn lacks_python(&self) -> bool {
        self.message.starts_with("No interpreter found")
    }

    /// Whether a lock does not match its project.
    pub(super) fn is_stale(&self) -> bool {
        self.message.contains("needs to be updated")
    }

    /// The error that a person reads. `folder` is where uv ran: there the lines of files are counted.
    pub(super) fn error(self, field: &str, folder: &Path) -> BuildError {
        let all = || self.causes.iter().chain([&self.message]);
        let (error, explained) =
            if all().any(|text| UNREACHABLE.iter().any(|mark| text.contains(mark))) {
                let error = BuildError::unavailable("the package index cannot be reached");
                (
                    error.hint("check the network and pip's configuration: `pip config list`"),
                    false,
                )
            } else if self.is_stale() {
                let error = BuildError::input("`uv.lock` does not match `pyproject.toml`");
                (error.hint("run `uv lock`"), true)
            } else if let Some(package) = self.unbuilt() {
                (source_only(package), false)
            } else if let Some(package) = self.broken() {
                (build_error(package, &self.text), true)
            } else if let Some((file, line)) = self.place(folder) {
                (
                    BuildError::input(format!("cannot read line {line} of `{file}`")),
                    false,
                )
            } else {
                let error = BuildError::input("cannot resolve the Python packages");
                (
                    error.hint("see which versions there are: `pip index versions NAME`"),
                    false,
                )
            };
        let mut error = error.field(field);
        if !explained {
            let messages = std::iter::once(self.message).chain(self.causes);
            let chain = messages.collect::<Vec<_>>().into_iter().rev();
            error.source = chain.fold(None, |source, message| {
                Some(Box::new(Cause { message, source }))
            });
        }
        error
    }

    /// The package that has no wheel, where uv may not build.
    pub(super) fn unbuilt(&self) -> Option<&str> {
        let all = || self.hints.iter().chain(&self.causes).chain([&self.message]);
        for mark in [
            "Wheels are required for `",
            "Building source distributions for `",
        ] {
            let rest = all().find_map(|text| text.split_once(mark));
            if let Some((name, _)) = rest.and_then(|(_, rest)| rest.split_once('`')) {
                return Some(name);
            }
        }
        all()
            .any(|text| text.contains("Building source distributions is disabled"))
            .then_some("a requirement of a URL")
    }

    /// The package whose build failed.
    fn broken(&self) -> Option<&str> {
        let marks = ["Failed to build `", "Failed to download and build `"];
        let all = || std::iter::once(&self.message).chain(&self.causes);
        let rest = marks
            .iter()
            .find_map(|mark| all().find_map(|text| text.split_once(mark)));
        Some(rest?.1.split_once('`')?.0)
    }

    /// File and line, where the message says ``in `FILE` at position BYTES``.
    fn place(&self, folder: &Path) -> Option<(String, usize)> {
        let (before, after) = self.message.split_once("` at position ")?;
        let file = before.rsplit_once('`')?.1;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let text = fs_err::read(folder.join(file)).ok()?;
        let head = text.get(..digits.parse::<usize>().ok()?.min(text.len()))?;
        let name = if file == super::resolve::PACKAGES {
            "packages"
        } else {
            file
        };
        Some((name.to_owned(), head.split(|byte| *byte == b'\n').count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagespec_core::error::ErrorKind;

    fn chain(error: &BuildError) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next = error.source.as_deref();
        while let Some(cause) = next {
            chain.push(cause.message.clone());
            next = cause.source.as_deref();
        }
        chain
    }

    #[test]
    fn a_position_becomes_a_line() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("a.txt"), "one\n\nnumpy===bad bad\n").unwrap();
        let stderr = "error: Couldn't parse requirement in `a.txt` at position 5\n  cause: expected version\n         numpy===bad bad\n              ^^^^^^^\n";
        let error = Said::read(stderr).error("requirements", folder.path());
        assert_eq!(
            (error.message.as_str(), error.kind),
            ("cannot read line 3 of `a.txt`", ErrorKind::Input)
        );
        let causes = [
            "Couldn't parse requirement in `a.txt` at position 5",
            "expected version numpy===bad bad",
        ];
        assert_eq!(chain(&error), causes);
    }

    #[test]
    fn a_package_without_wheels_is_named() {
        let stderr = "error: No solution found when resolving dependencies\n  cause: Because all versions of pyspark have no usable wheels\n\nhint: Wheels are required for `pyspark` because building from source is disabled for all packages (i.e., with `--no-build`)\n";
        let error = Said::read(stderr).error("packages", Path::new("."));
        assert_eq!(error.message, "only a source distribution suits: `pyspark`");
        assert_eq!(error.field.as_deref(), Some("packages"));
    }

    #[test]
    fn an_unreachable_index_is_not_the_persons_fault_and_its_password_is_not_shown() {
        let stderr = "error: Request failed after 3 retries\n  cause: Failed to fetch: https://u:secret@x.invalid/simple/six/\n  cause: dns error\n";
        let error = Said::read(stderr).error("requirements", Path::new("."));
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(!format!("{error:?}").contains("secret"));
        let stale = Said::read(
            "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.\n",
        );
        assert!(stale.is_stale());
        assert_eq!(
            stale.error("requirements", Path::new(".")).hints,
            ["run `uv lock`"]
        );
    }
}
