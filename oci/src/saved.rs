//! Archives as `docker save` writes them, of old engines and new: taken into the store.

use std::collections::HashMap;
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use fs_err::File;
use imagespec_core::digest::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::cache::Layer;
use crate::image::{DOCUMENT_LIMIT, Descriptor, Image};
use crate::store::BlobStore;

/// The most entries an archive may have.
const ENTRIES: usize = 100_000;
/// Media types of layers in the store.
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// Takes the first image of an archive into the store. Layers are compressed where the engine kept them plain. The
/// archive passes through `work`, a folder that is empty.
pub fn read(store: &BlobStore, archive: impl Read, work: &Path) -> io::Result<Descriptor> {
    let files = unpack(archive, work)?;
    let open = |path: &str| -> io::Result<File> {
        let file = files.get(path).ok_or_else(|| lacks(path))?;
        File::open(file)
    };
    let document = |path: &str| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open(path)?.take(DOCUMENT_LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let saved: Vec<Saved> = serde_json::from_slice(&document("manifest.json")?)?;
    let saved = saved.first().ok_or_else(|| lacks("an image"))?;
    let config = document(&saved.config)?;
    let mut image = Image::of_config(&config, &Digest::of(&config))?;
    if image.layers.len() != saved.layers.len() {
        let message = "the archive has another number of layers than the image";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    for (layer, path) in image.layers.iter_mut().zip(&saved.layers) {
        let file = open(path)?;
        *layer = take(store, file, layer)?;
    }
    image.write(store)
}

/// Writes the regular files of an archive to a folder, and says where each is by its path.
fn unpack(archive: impl Read, work: &Path) -> io::Result<HashMap<String, PathBuf>> {
    let mut files = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(archive);
    for (number, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if number == ENTRIES {
            let message = "the archive has too many entries";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            let target = entry.link_name_bytes().unwrap_or_default();
            links.push((path, String::from_utf8_lossy(&target).into_owned()));
        } else if kind.is_file() {
            let to = work.join(number.to_string());
            let mut file = File::create_new(&to)?;
            io::copy(&mut entry, &mut file)?;
            files.insert(path, to);
        }
    }
    // Whoever sends it is not done before the padding after the last entry is taken, too.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    // An engine names a layer that is there twice by a link from one folder to the other.
    for (path, target) in links {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if let Some(file) = files.get(&joined(folder, &target)).cloned() {
            files.insert(path, file);
        }
    }
    Ok(files)
}

/// A relative path from a folder of the archive.
fn joined(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A layer of a file, which must be the one that the image names.
fn take(store: &BlobStore, mut file: File, expected: &Layer) -> io::Result<Layer> {
    let mut magic = [0; 4];
    let length = file.read(&mut magic)?;
    let media_type = match magic {
        [0x1f, 0x8b, ..] if length > 2 => Some(GZIP),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(ZSTD),
        _ => None,
    };
    file.rewind()?;
    let mut blob = Digested::new(store.writer()?);
    let diff_id = if let Some(media_type) = media_type {
        io::copy(&mut file, &mut blob)?;
        file.rewind()?;
        let file = io::BufReader::new(file);
        if media_type == ZSTD {
            Digest::of_reader(&mut zstd::Decoder::with_buffer(file)?)?.0
        } else {
            Digest::of_reader(&mut MultiGzDecoder::new(file))?.0
        }
    } else {
        let mut plain = Digested::new(GzEncoder::new(&mut blob, Compression::default()));
        io::copy(&mut file, &mut plain)?;
        let (encoder, diff_id) = plain.finish()?;
        encoder.finish()?;
        diff_id
    };
    if diff_id != expected.diff_id {
        let message = format!("a layer is not the one that the image names: {diff_id}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let (blob, digest) = blob.finish()?;
    Ok(Layer {
        digest,
        diff_id,
        size: blob.commit(&digest)?,
        uncompressed_size: 0,
        media_type: media_type.unwrap_or(GZIP).to_owned(),
        created_by: expected.created_by.clone(),
    })
}

/// A writer that digests what passes.
struct Digested<W> {
    writer: W,
    hash: Sha256,
}

impl<W: Write> Digested<W> {
    fn new(writer: W) -> Self {
        let hash = Sha256::new();
        Self { writer, hash }
    }

    fn finish(self) -> io::Result<(W, Digest)> {
        let digest = format!("sha256:{}", hex::encode(self.hash.finalize()));
        let digest = digest.parse().map_err(io::Error::other)?;
        Ok((self.writer, digest))
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.writer.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn lacks(what: &str) -> io::Error {
    let message = format!("the archive of the engine lacks `{what}`");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use imagespec_core::platform::Platform;

    use super::*;
    use crate::archive;
    use crate::image::tests::stored;

    fn archive(entries: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, *content)
                .expect("an entry");
        }
        for (path, target) in links {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).expect("a link");
        }
        tar.into_inner().expect("an archive")
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let ids: Vec<_> = layers.iter().map(Digest::of).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"User": "flytekit"},
            "rootfs": {"type": "layers", "diff_ids": ids},
            "history": [{"created_by": "one"}, {"empty_layer": true}, {"created_by": "two"}],
        });
        serde_json::to_vec(&config).expect("JSON")
    }

    fn taken(bytes: &[u8]) -> io::Result<(BlobStore, tempfile::TempDir, Descriptor)> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path().join("store"));
        let work = folder.path().join("work");
        fs_err::create_dir(&work).expect("a folder");
        let image = read(&store, bytes, &work)?;
        Ok((store, folder, image))
    }

    #[test]
    fn an_archive_is_read_to_its_end() {
        let manifest = br#"[{"Config": "c.json", "Layers": []}]"#;
        let mut bytes = archive(
            &[("c.json", &config(&[])), ("manifest.json", manifest)],
            &[],
        );
        bytes.resize(bytes.len() + 9 * 1024, 0);
        let mut rest = bytes.as_slice();
        let folder = tempfile::tempdir().expect("a folder");
        unpack(&mut rest, folder.path()).expect("files");
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
    }

    #[test]
    fn an_archive_of_an_old_engine_has_plain_layers_and_links() {
        let manifest = br#"[{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]"#;
        let bytes = archive(
            &[
                ("a/layer.tar", b"same"),
                ("c.json", &config(&[b"same", b"same"])),
                ("manifest.json", manifest),
            ],
            &[("b/layer.tar", "../a/layer.tar")],
        );
        let (store, _folder, image) = taken(&bytes).expect("an image");
        let image = Image::read(&store, &image.digest, &Platform::amd64()).expect("an image");
        assert_eq!(image.runtime.user, "flytekit");
        let created: Vec<_> = image
            .layers
            .iter()
            .map(|layer| layer.created_by.as_str())
            .collect();
        assert_eq!(created, ["one", "two"]);
        let blob = store.open_blob(&image.layers[0].digest).expect("a blob");
        let mut plain = String::new();
        MultiGzDecoder::new(blob)
            .read_to_string(&mut plain)
            .expect("gzip");
        assert_eq!(plain, "same");
    }

    #[test]
    fn what_we_write_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let written = stored(&store, "x").write(&store).expect("an image");
        let mut bytes = Vec::new();
        archive::stream(&store, &written, &Platform::amd64(), &[], &mut bytes).expect("an archive");
        let (again, _folder, image) = taken(&bytes).expect("an image");
        let image = Image::read(&again, &image.digest, &Platform::amd64()).expect("an image");
        assert_eq!(image.layers[0].diff_id, Digest::of("x"));
        assert!(
            again
                .contains(&image.layers[0].digest)
                .expect("a store")
                .is_some()
        );
    }

    #[test]
    fn an_archive_that_lacks_something_or_has_another_layer_is_refused() {
        let manifest = br#"[{"Config": "c.json", "Layers": ["../../etc/passwd"]}]"#;
        for entries in [
            vec![],
            vec![("manifest.json", &b"[]"[..])],
            vec![("manifest.json", &manifest[..])],
        ] {
            assert!(taken(&archive(&entries, &[])).is_err());
        }
        let config = config(&[b"this"]);
        let manifest = br#"[{"Config": "c.json", "Layers": ["a"]}]"#;
        let entries = [
            ("a", &b"that"[..]),
            ("c.json", &config),
            ("manifest.json", manifest),
        ];
        let error = taken(&archive(&entries, &[])).expect_err("another layer");
        assert!(error.to_string().contains("not the one"), "{error}");
    }
}
