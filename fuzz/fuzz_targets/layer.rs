//! `cargo fuzz run layer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::layers::layer(input));
