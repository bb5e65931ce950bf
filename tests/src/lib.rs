//! What tests across crates, and of builders that live elsewhere, have in common.

pub mod contract;
pub mod fuzz;
pub mod linked;
