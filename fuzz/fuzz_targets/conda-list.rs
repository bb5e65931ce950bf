//! `cargo fuzz run conda-list`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::conda::list(input));
