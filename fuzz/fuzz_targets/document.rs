//! `cargo fuzz run document`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::layers::document(input));
