//! Layers: deterministic tar streams, compressed and digested on the way.

mod compress;
mod error;
mod header;
mod path;
mod writer;

#[cfg(test)]
mod tests;

pub use error::LayerError;
pub use header::{Device, Metadata};
pub use writer::{Deflated, LayerInfo, LayerWriter, contract_parents};
