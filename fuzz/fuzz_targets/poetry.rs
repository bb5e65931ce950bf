//! `cargo fuzz run poetry`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::python::poetry(input));
