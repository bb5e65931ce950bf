//! OCI image layouts: folders of blobs with an index (image specification, "Image Layout").

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::image::{Descriptor, INDEX, Index, reachable};
use crate::reference::Reference;
use crate::store::{BlobStore, write_atomically};

/// The content of `oci-layout`.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation of an image with the name that people give it.
pub const NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation of an image with its name in full: `docker.io/library/app:1`.
const FULL_NAME: &str = "io.containerd.image.name";

/// Writes an image with its names to a folder, which appears when it is complete. The folder must be absent,
/// empty or a layout, which is then replaced; anything else is an error of kind
/// [`io::ErrorKind::AlreadyExists`]. Blobs are linked where the file system allows.
pub fn write(
    store: &BlobStore,
    image: &Descriptor,
    references: &[String],
    folder: &Path,
) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let replaces = is_layout(&folder)?;
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs_err::create_dir_all(parent)?;
    let work = tempfile::Builder::new()
        .prefix(".layout-")
        .tempdir_in(parent)?;
    // A folder in the temporary one, which is closed to everyone else.
    let (new, old) = (work.path().join("new"), work.path().join("old"));
    fill(store, image, references, &new)?;
    if replaces {
        fs_err::rename(&folder, &old)?;
    }
    if let Err(error) = fs_err::rename(&new, &folder) {
        if replaces {
            fs_err::rename(&old, &folder)?;
        }
        return Err(error);
    }
    fs_err::File::open(parent)?.sync_all()
}

/// Whether there is a layout, rather than nothing or an empty folder.
fn is_layout(folder: &Path) -> io::Result<bool> {
    let occupied = || {
        let message = format!(
            "neither empty nor an OCI image layout: `{}`",
            folder.display()
        );
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    };
    let mut entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(occupied()),
        Err(error) => return Err(error),
    };
    match entries.next() {
        None => Ok(false),
        Some(_) if folder.join("oci-layout").is_file() => Ok(true),
        Some(_) => Err(occupied()),
    }
}

fn fill(
    store: &BlobStore,
    image: &Descriptor,
    references: &[String],
    folder: &Path,
) -> io::Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs)?;
    for blob in reachable(store, image)? {
        let (from, to) = (store.path(&blob.digest), blobs.join(blob.digest.hex()));
        if fs_err::hard_link(&from, &to).is_err() {
            fs_err::copy(&from, &to)?;
            fs_err::File::open(&to)?.sync_all()?;
        }
    }
    write_atomically(&folder.join("oci-layout"), LAYOUT.as_bytes())?;
    write_atomically(&folder.join("index.json"), &index_json(image, references)?)
}

/// The index of a layout that holds one image under several names.
pub(crate) fn index_json(image: &Descriptor, references: &[String]) -> io::Result<Vec<u8>> {
    let named = references.iter().map(|reference| {
        // containerd, and engines that keep images in it, know an image by its full name alone.
        let full: Reference = reference.parse().map_err(io::Error::other)?;
        let name = BTreeMap::from([
            (NAME.to_owned(), reference.clone()),
            (FULL_NAME.to_owned(), full.to_string()),
        ]);
        Ok(Descriptor {
            annotations: name,
            ..image.clone()
        })
    });
    let mut manifests = named.collect::<io::Result<Vec<_>>>()?;
    if manifests.is_empty() {
        manifests.push(image.clone());
    }
    let index = Index {
        schema_version: 2,
        media_type: INDEX.to_owned(),
        manifests,
    };
    Ok(serde_json::to_vec(&index)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::stored;

    fn children(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs_err::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().display().to_string())
            .collect();
        names.sort();
        names
    }

    fn image() -> (tempfile::TempDir, BlobStore, Descriptor) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path().join("store"));
        let image = stored(&store, "x").write(&store).expect("an image");
        (folder, store, image)
    }

    #[test]
    fn a_layout_is_complete_and_replaces_an_earlier_one() {
        let (folder, store, image) = image();
        let to = folder.path().join("a/layout");
        write(&store, &image, &["app:1".to_owned()], &to).expect("a layout");
        assert_eq!(children(&to), ["blobs", "index.json", "oci-layout"]);
        assert_eq!(children(&to.join("blobs/sha256")).len(), 3);
        let index = fs_err::read(to.join("index.json")).expect("an index");
        let index: Index = serde_json::from_slice(&index).expect("an index");
        assert_eq!(index.manifests[0].digest, image.digest);

        let other = stored(&store, "y").write(&store).expect("an image");
        write(&store, &other, &[], &to).expect("a layout");
        assert!(to.join("blobs/sha256").join(other.digest.hex()).exists());
        assert_eq!(children(&to.join("blobs/sha256")).len(), 3);
        assert_eq!(children(&folder.path().join("a")), ["layout"]);
    }

    #[test]
    fn what_is_no_layout_is_left_alone() {
        let (folder, store, image) = image();
        let empty = folder.path().join("empty");
        fs_err::create_dir(&empty).expect("a folder");
        write(&store, &image, &[], &empty).expect("a layout");
        let (file, full) = (folder.path().join("file"), folder.path().join("full"));
        fs_err::write(&file, "precious").expect("a file");
        fs_err::create_dir(&full).expect("a folder");
        fs_err::write(full.join("precious"), "").expect("a file");
        for to in [&file, &full] {
            let error = write(&store, &image, &[], to).expect_err("occupied");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(children(&full), ["precious"]);
        assert_eq!(children(folder.path()), ["empty", "file", "full", "store"]);
    }

    #[test]
    fn a_missing_blob_leaves_nothing() {
        let (folder, store, image) = image();
        fs_err::remove_file(store.path(&imagespec_core::digest::Digest::of("x"))).expect("a blob");
        write(&store, &image, &[], &folder.path().join("to")).expect_err("a blob is missing");
        assert_eq!(children(folder.path()), ["store"]);
    }
}
