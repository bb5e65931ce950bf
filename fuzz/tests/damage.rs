//! Every parser under random damage. `cargo xtask soak` does this for long.

use imagespec_fuzz::{TARGETS, corpus};
use imagespec_testkit::fuzz::fuzz;

fn damage(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target");
    fuzz(&corpus(name), target.tokens, target.run);
}

/// A test for each target.
macro_rules! tests {
    ($($test:ident $name:literal)*) => {
        $(
            #[test]
            fn $test() {
                damage($name);
            }
        )*

        #[test]
        fn every_target_has_a_test_a_program_and_a_corpus() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$($name),*]);
            for name in names {
                assert!(corpus(name).is_dir(), "{name}");
                let program = format!("fuzz_targets/{name}.rs");
                assert!(std::path::Path::new(&program).is_file(), "{program}");
            }
        }
    };
}

tests! {
    code "code"
    conda "conda"
    conda_list "conda-list"
    conda_shard "conda-shard"
    deb "deb"
    deb_plain "deb-plain"
    deb822 "deb822"
    document "document"
    ignore "ignore"
    keyring "keyring"
    layer "layer"
    poetry "poetry"
    pylock "pylock"
    reference "reference"
    signature "signature"
    spec "spec"
    version "version"
    wheel "wheel"
    wheel_stored "wheel-stored"
}

#[test]
fn the_wheels_of_the_corpus_are_sound() {
    for seed in fs_err::read_dir(corpus("wheel")).expect("a corpus") {
        let bytes = fs_err::read(seed.expect("a file").path()).expect("a file");
        imagespec_fuzz::python::install(&bytes).expect("a sound wheel");
    }
}
