//! A builder's crate that is listed in `Cargo.toml`, and that no `use` links.

use std::path::Path;

use imagespec_core::registry::Registry;
use imagespec_testkit::linked::unlinked;

#[test]
fn a_crate_that_is_only_listed_is_noticed() {
    let known = Registry::linked().unwrap().names();
    let missing = unlinked(Path::new(env!("CARGO_MANIFEST_DIR")), &known).unwrap();
    assert_eq!(missing, ["noop"]);
}
