//! Which packages the base is made of.

use imagespec_core::platform::Platform;

use crate::archive::Suite;
use crate::error::DebianError;
use crate::package::Package;

/// What a base has beside everything essential and required.
///
/// `usr-is-merged` keeps out its alternative `usrmerge`, which converts a system and needs all of Perl for it.
const WANTED: [&str; 7] = [
    "apt",
    "bash",
    "ca-certificates",
    "media-types",
    "netbase",
    "tzdata",
    "usr-is-merged",
];
/// The release's own Python.
const PYTHON: [&str; 2] = ["python3", "python3-distutils"];

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

impl Suite {
    /// The packages of a base: everything essential or required, what tasks need, and the release's `python` where
    /// that is wanted.
    pub fn base_packages(&self, python: bool) -> Result<Vec<Package>, DebianError> {
        let index = self.index();
        let mut names: Vec<String> = index
            .latest()
            .filter(|candidate| candidate.is_essential() || candidate.rank() == 0)
            .map(|candidate| candidate.name().to_owned())
            .collect();
        let there = |name: &&&str| index.latest_of(name).is_some();
        let python = PYTHON.iter().filter(|_| python);
        let wanted = WANTED.iter().chain(python).filter(there);
        names.extend(wanted.map(|name| (*name).to_owned()));
        names.sort();
        names.dedup();
        self.closure(&names, &[])
    }
}
