//! Which packages the base is made of, and which suite has which Python.

use imagespec_core::platform::Platform;

use crate::archive::Suite;
use crate::error::DebianError;
use crate::package::Package;

/// Suites by the Python they have.
const SUITES: [(&str, &str); 3] = [
    ("3.9", "bullseye"),
    ("3.11", "bookworm"),
    ("3.13", "trixie"),
];
/// The suite when no Python is asked for.
pub const DEFAULT_SUITE: &str = "bookworm";
/// What a base has beside everything essential and required.
///
/// `usr-is-merged` keeps out its alternative `usrmerge`, which converts a system and needs all of Perl for it.
const WANTED: [&str; 9] = [
    "apt",
    "bash",
    "ca-certificates",
    "media-types",
    "netbase",
    "python3",
    "python3-distutils",
    "tzdata",
    "usr-is-merged",
];

/// What base is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRequest {
    /// The suite's code name.
    pub suite: String,
    /// Architecture, as Debian names it.
    pub architecture: String,
    /// The Python there must be, `3.11`; `None`: the suite's own.
    pub python: Option<String>,
}

/// The suite whose `python3` is the wanted version (`3.11` or `3.11.4`, of which the first two numbers
/// count).
pub fn suite_for_python(version: &str) -> Result<&'static str, DebianError> {
    let mut numbers = version.split('.');
    let wanted = match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => version.to_owned(),
    };
    SUITES
        .iter()
        .find(|(python, _)| *python == wanted)
        .map(|(_, suite)| *suite)
        .ok_or_else(|| DebianError::Python {
            wanted: version.to_owned(),
            known: SUITES.map(|(python, _)| python).join(", "),
        })
}

/// The Python of a suite this crate knows: `3.11`.
pub fn python_of(suite: &str) -> Option<&'static str> {
    SUITES
        .iter()
        .find(|(_, name)| *name == suite)
        .map(|(python, _)| *python)
}

/// What Debian calls the architecture of a platform, where it has one.
pub fn architecture(platform: &Platform) -> Option<&'static str> {
    Some(
        match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("amd64", None) => "amd64",
            ("arm64", None) => "arm64",
            ("arm", Some("v7")) => "armhf",
            ("arm", Some("v6" | "v5")) => "armel",
            ("386", None) => "i386",
            ("ppc64le", None) => "ppc64el",
            ("s390x", None) => "s390x",
            ("riscv64", None) => "riscv64",
            _ => return None,
        },
    )
}

/// The multiarch name of an architecture: `x86_64-linux-gnu`.
pub(crate) fn triplet(architecture: &str) -> Option<&'static str> {
    Some(match architecture {
        "amd64" => "x86_64-linux-gnu",
        "arm64" => "aarch64-linux-gnu",
        "armhf" => "arm-linux-gnueabihf",
        "armel" => "arm-linux-gnueabi",
        "i386" => "i386-linux-gnu",
        "ppc64el" => "powerpc64le-linux-gnu",
        "s390x" => "s390x-linux-gnu",
        "riscv64" => "riscv64-linux-gnu",
        _ => return None,
    })
}

impl BaseRequest {
    /// The base for a Python, or for [`DEFAULT_SUITE`] where none is asked for.
    pub fn new(python: Option<&str>, architecture: &str) -> Result<Self, DebianError> {
        let suite = python.map_or(Ok(DEFAULT_SUITE), suite_for_python)?;
        Ok(Self {
            suite: suite.to_owned(),
            architecture: architecture.to_owned(),
            python: python_of(suite).map(ToOwned::to_owned),
        })
    }
}

impl Suite {
    /// The packages of a base: everything essential or required, and what Python tasks need.
    pub fn base_packages(&self) -> Result<Vec<Package>, DebianError> {
        let index = self.index();
        let mut names: Vec<String> = index
            .latest()
            .filter(|candidate| candidate.package.essential || candidate.rank() == 0)
            .map(|candidate| candidate.package.name.clone())
            .collect();
        let there = |name: &&&str| {
            index
                .latest()
                .any(|candidate| candidate.package.name == **name)
        };
        names.extend(WANTED.iter().filter(there).map(|name| (*name).to_owned()));
        names.sort();
        names.dedup();
        self.closure(&names, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_chooses_its_suite_or_lists_what_there_is() {
        assert_eq!(suite_for_python("3.11.9").ok(), Some("bookworm"));
        assert_eq!(suite_for_python("3.13").ok(), Some("trixie"));
        let error = suite_for_python("3.12").expect_err("no such suite");
        assert_eq!(
            error.to_string(),
            "no Debian release has Python 3.12; there are 3.9, 3.11, 3.13"
        );
    }
}
