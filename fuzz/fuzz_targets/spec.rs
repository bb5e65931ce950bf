//! `cargo fuzz run spec`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::text::spec(input));
