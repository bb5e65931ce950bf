//! The builders of the plain command: a crate that is only listed in the manifest is not linked.

use imagespec_builder_local as _;
use imagespec_builder_native as _;

#[cfg(test)]
mod tests {
    use imagespec_core::registry::Registry;

    #[test]
    fn every_builder_in_the_manifest_is_linked() {
        let manifest = include_str!("../Cargo.toml");
        let listed = manifest
            .lines()
            .filter(|line| line.starts_with("imagespec-builder-"))
            .count();
        let linked = Registry::linked().expect("a registry").names();
        assert_eq!(linked, ["default", "native"]);
        assert_eq!(listed, linked.len());
    }
}
