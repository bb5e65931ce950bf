//! The builders of the plain command: a crate that is only listed in the manifest is not linked. Beside those that are
//! linked there are programs of their own.

use imagespec_builder_cloud as _;
use imagespec_builder_external as external;
use imagespec_builder_kaniko as _;
use imagespec_builder_local as _;
use imagespec_builder_native as _;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::protocol::PROGRAM;
use imagespec_core::registry::{BuilderEntry, Registry};

/// The builder of a name: one that is linked, or a program on `PATH`.
pub(crate) fn find(
    registry: &Registry,
    host: &Host,
    name: &str,
) -> Result<BuilderEntry, BuildError> {
    registry.get(name).copied().or_else(|unknown| {
        external::entry(host, name).ok_or_else(|| {
            unknown.hint(format!(
                "a program `{PROGRAM}{name}` on PATH would be one, too"
            ))
        })
    })
}

/// All builders: those that are linked, and programs of other names.
pub(crate) fn all(registry: &Registry, host: &Host) -> Vec<BuilderEntry> {
    let linked = registry.entries().copied();
    let others = external::all(host).into_iter();
    let others = others.filter(|entry| registry.get(entry.name).is_err());
    linked.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builder_in_the_manifest_is_linked() {
        let manifest = include_str!("../Cargo.toml");
        let listed = manifest
            .lines()
            .filter(|line| line.starts_with("imagespec-builder-"))
            .filter(|line| !line.starts_with("imagespec-builder-external"))
            .count();
        let linked = Registry::linked().expect("a registry").names();
        assert_eq!(linked, ["default", "kaniko", "native", "union"]);
        assert_eq!(listed, linked.len());
    }
}
