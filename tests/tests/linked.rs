//! The same crate, linked.

use std::path::Path;

use acme_builder as _;
use imagespec_core::registry::Registry;
use imagespec_testkit::linked::unlinked;

#[test]
fn a_crate_that_is_linked_is_known() {
    let known = Registry::linked().unwrap().names();
    let missing = unlinked(Path::new(env!("CARGO_MANIFEST_DIR")), &known).unwrap();
    assert_eq!((known, missing), (vec!["noop"], Vec::new()));
}
