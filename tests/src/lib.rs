//! What tests across crates, and of builders that live elsewhere, have in common.

pub mod fuzz;
pub mod linked;
