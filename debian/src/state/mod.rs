//! The state of a base: everything that maintainer scripts would have left behind, from declared tables.

mod accounts;
mod alternatives;
mod certificates;
mod defaults;
mod dpkg;
mod elf;
mod facts;
mod ld_cache;
mod subject_hash;
mod tree;
mod write;

pub use write::{key, write};
