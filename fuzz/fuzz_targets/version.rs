//! `cargo fuzz run version`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::debian::version(input));
