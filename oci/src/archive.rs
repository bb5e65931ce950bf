//! Archives that `docker load` takes, and that are OCI image layouts in a tar as well.

use std::io::{self, Read, Write};
use std::path::Path;

use imagespec_core::platform::Platform;
use serde_json::json;

use crate::image::{Descriptor, Manifest, reachable};
use crate::layout::{LAYOUT, index_json};
use crate::store::{BlobStore, publish};

/// Writes the image of `platform` with its names to a file, which appears only when it is complete.
pub fn write(
    store: &BlobStore,
    image: &Descriptor,
    platform: &Platform,
    references: &[String],
    path: &Path,
) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".archive-")
        .tempfile_in(folder)?;
    stream(
        store,
        image,
        platform,
        references,
        &mut io::BufWriter::new(&mut file),
    )?;
    publish(file, path)
}

fn stream(
    store: &BlobStore,
    image: &Descriptor,
    platform: &Platform,
    references: &[String],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let manifest = Manifest::read(store, &image.digest, platform)?;
    let blob = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest.hex());
    let docker = json!([{
        "Config": blob(&manifest.config),
        "RepoTags": references,
        "Layers": manifest.layers.iter().map(blob).collect::<Vec<_>>(),
    }]);
    for descriptor in reachable(store, image)? {
        let content = store.open_blob(&descriptor.digest)?;
        append(
            &mut tar,
            &blob(&descriptor),
            descriptor.size,
            content.take(descriptor.size),
        )?;
    }
    for (name, content) in [
        ("index.json", index_json(image, references)?),
        ("manifest.json", serde_json::to_vec(&docker)?),
        ("oci-layout", LAYOUT.as_bytes().to_vec()),
    ] {
        append(&mut tar, name, content.len() as u64, content.as_slice())?;
    }
    tar.into_inner()?.flush()
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, path, content)
}
