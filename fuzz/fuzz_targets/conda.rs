//! `cargo fuzz run conda`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::conda::package(input));
