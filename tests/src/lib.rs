//! The conformance suite any imagespec builder can run, and the tests across crates.
