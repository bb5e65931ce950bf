//! Unpacking a layer into a folder that an overlay can take as one of its own.

mod tree;

use std::io::Read;
use std::path::Path;

use imagespec_oci::layer::LayerReader;

use crate::error::Error;
use crate::job::Tier;

use self::tree::Tree;

/// Unpacks a layer, an uncompressed tar of the OCI image specification ("Image Layer Filesystem Changeset"),
/// into the existing empty folder `dest`, in the form that `tier` mounts.
///
/// The archive is not trusted. Nothing is written outside `dest` and no link is followed, headers are
/// bounded in size, and no more is written than is read. Owners that the tier cannot set are recorded on
/// the files; devices are left out where they cannot be made.
pub fn unpack(reader: impl Read, dest: &Path, tier: Tier) -> Result<(), Error> {
    let mut layer = LayerReader::new(reader);
    let mut tree = Tree::open(dest, tier)?;
    while let Some(entry) = layer.next_entry()? {
        tree.add(&entry, &mut layer.content())?;
    }
    tree.finish()
}

/// An entry that cannot be.
fn refuse(reason: &'static str, entry: &[u8]) -> Error {
    Error::Layer {
        reason,
        entry: String::from_utf8_lossy(&entry[..entry.len().min(256)]).into_owned(),
    }
}
