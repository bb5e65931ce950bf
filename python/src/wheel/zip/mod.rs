//! Zip archives (APPNOTE 6.3.10), read by their central directory, with raw access to deflated entries.
//!
//! Only what wheels need is accepted: stored and deflated entries, zip64, data descriptors. Everything in
//! which two readers of the archive could see different things is refused.

mod archive;
mod end;
mod entry;
mod fields;

pub(super) use archive::Zip;
pub(super) use entry::{Entry, Method};
