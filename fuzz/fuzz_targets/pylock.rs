//! `cargo fuzz run pylock`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::python::pylock(input));
