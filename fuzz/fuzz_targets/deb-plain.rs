//! `cargo fuzz run deb-plain`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::debian::deb_plain(input));
