//! OCI image layouts: folders of blobs with an index (image specification, "Image Layout").

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::image::{Descriptor, INDEX, Index, reachable};
use crate::store::{BlobStore, write_atomically};

/// The content of `oci-layout`.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes an image with its names into a folder. The folder must be absent, empty or a layout, whose other
/// blobs stay; the index is written last, so that it never names what is not there.
pub fn write(
    store: &BlobStore,
    image: &Descriptor,
    references: &[String],
    folder: &Path,
) -> io::Result<()> {
    let occupied = fs_err::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !folder.join("oci-layout").is_file() {
        let message = format!(
            "the folder is neither empty nor an OCI image layout: `{}`",
            folder.display()
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let target = BlobStore::open(folder.join("blobs"));
    for blob in reachable(store, image)? {
        if target.contains(&blob.digest)? == Some(blob.size) {
            continue;
        }
        let mut writer = target.writer()?;
        io::copy(&mut store.open_blob(&blob.digest)?, &mut writer)?;
        writer.commit(&blob.digest)?;
    }
    write_atomically(&folder.join("oci-layout"), LAYOUT.as_bytes())?;
    write_atomically(&folder.join("index.json"), &index_json(image, references)?)
}

/// The index of a layout that holds one image under several names.
pub(crate) fn index_json(image: &Descriptor, references: &[String]) -> io::Result<Vec<u8>> {
    let manifests = references.iter().map(|reference| {
        let name = BTreeMap::from([(
            "org.opencontainers.image.ref.name".to_owned(),
            reference.clone(),
        )]);
        Descriptor {
            annotations: name,
            ..image.clone()
        }
    });
    let index = Index {
        schema_version: 2,
        media_type: INDEX.to_owned(),
        manifests: manifests.collect(),
    };
    Ok(serde_json::to_vec(&index)?)
}
