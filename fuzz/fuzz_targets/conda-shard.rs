//! `cargo fuzz run conda-shard`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| imagespec_fuzz::conda::shard(input));
