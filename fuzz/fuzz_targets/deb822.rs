//! `cargo fuzz run deb822`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::debian::deb822(input));
