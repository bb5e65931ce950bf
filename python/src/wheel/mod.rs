//! Wheels: read as hostile archives, written as layers (binary distribution format, packaging.python.org).

mod error;
mod install;
mod metadata;
mod record;
mod zip;

#[cfg(test)]
mod tests;

pub use error::WheelError;
pub use install::{Layout, Module, Wheel, extract};
pub use metadata::EntryPoint;
