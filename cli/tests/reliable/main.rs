//! The real command while everything around it goes wrong: kills and signals, several at once, disks that are
//! full or read-only, indexes that lie, images larger than memory, and passwords that must not be kept.
//!
//! How much is done is for `cargo xtask soak` to say; a test does little. What is random follows from a seed
//! that every failure names.

#![cfg(target_os = "linux")]

mod disk;
mod index;
mod kills;
mod memory;
mod place;
mod registry;
mod scale;
mod secrets;
mod several;
mod wheels;
