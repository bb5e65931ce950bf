//! Layers: deterministic tar streams, compressed and digested on the way; and how those of others are read.

mod compress;
mod error;
mod header;
mod path;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use error::LayerError;
pub use header::{Device, Metadata};
pub use reader::{EntryKind, LayerEntry, LayerReader, ReadError};
pub use writer::{Deflated, LayerInfo, LayerWriter, contract_parents};
