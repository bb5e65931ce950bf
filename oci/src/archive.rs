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
        &mut io::BufWriter::with_capacity(256 * 1024, &mut file),
    )?;
    publish(file, path)
}

/// As [`write()`], to any writer. The same image with the same names is the same bytes.
pub fn stream(
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
        // A header that promises other bytes than follow would shift every entry after it.
        if content.metadata()?.len() != descriptor.size {
            let message = format!(
                "a blob is not as long as its descriptor says: `{}`",
                descriptor.digest
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        append(&mut tar, &blob(&descriptor), descriptor.size, content)?;
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
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, content)
}

#[cfg(test)]
mod tests {
    use imagespec_core::digest::Digest;

    use super::*;
    use crate::image::tests::stored;

    #[test]
    fn an_archive_is_both_dockers_and_ocis_and_the_same_every_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let image = stored(&store, "x").write(&store).expect("an image");
        let names = ["app:1".to_owned(), "app:2".to_owned()];
        let archive = || {
            let mut bytes = Vec::new();
            stream(&store, &image, &Platform::amd64(), &names, &mut bytes).expect("an archive");
            bytes
        };
        let bytes = archive();
        assert_eq!(bytes, archive());
        let mut found = Vec::new();
        let mut docker = serde_json::Value::Null;
        let mut archive = tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            if path == "manifest.json" {
                docker = serde_json::from_reader(&mut entry).expect("JSON");
            } else if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                let (digest, _) = Digest::of_reader(&mut entry).expect("content");
                assert_eq!(digest.hex(), hex);
            }
            found.push(path);
        }
        assert_eq!(found.len(), 6);
        assert_eq!(docker[0]["RepoTags"], json!(names));
        for path in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
            assert!(found.iter().any(|entry| entry == path), "{path}");
        }
    }

    #[test]
    fn a_failed_archive_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path().join("store"));
        let image = stored(&store, "x").write(&store).expect("an image");
        fs_err::remove_file(store.path(&Digest::of("x"))).expect("damage");
        fs_err::write(store.path(&Digest::of("x")), "xx").expect("damage");
        let to = folder.path().join("out/app.tar");
        let error = write(&store, &image, &Platform::amd64(), &[], &to).expect_err("damage");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            fs_err::read_dir(folder.path().join("out"))
                .expect("a folder")
                .count(),
            0
        );
    }
}
