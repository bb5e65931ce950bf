//! What executor `native` remembers from pod to pod, in the registry that it pushes to: which layers were made from what,
//! what bases hold, and which repository has which layer. It is small, and holds no content: the layers are where they were
//! pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use imagespec_core::context::Compression;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::cache::Layer;
use imagespec_oci::delivery::{parse, unwritten};
use imagespec_oci::image::{Image, Runtime};
use imagespec_oci::images::ImageStore;
use imagespec_oci::layer::{LayerError, LayerWriter, Metadata, contract_parents};
use imagespec_oci::registry::{Mounts, Pull, Push, Stored};
use imagespec_oci::store::{BlobStore, write_atomically};
use imagespec_oci::{Reference, Registry};
use tokio_util::sync::CancellationToken;

/// The repository, beside that of the image which is built.
pub(crate) const REPOSITORY: &str = "imagespec-cache";
/// Its tag: the version of what is remembered.
const TAG: &str = "v1";
/// The folders of the cache that are remembered.
const FOLDERS: [&str; 3] = ["bases", "layers", REGISTRIES];
/// That of them which says where layers are.
const REGISTRIES: &str = "registries";
/// How many files of a folder are remembered: those written last.
const FILES: usize = 4096;
/// The largest of them, in bytes, and the most bytes of all.
const FILE: u64 = 16 << 20;
const ALL: u64 = 256 << 20;

/// A memory of one build.
pub(crate) struct Memory<'a> {
    host: &'a Host,
    reference: Reference,
    registry: Registry,
    store: ImageStore,
    cancel: &'a CancellationToken,
}

impl<'a> Memory<'a> {
    /// That of a repository.
    pub(crate) fn open(
        host: &'a Host,
        repository: &str,
        cancel: &'a CancellationToken,
    ) -> Result<Self, BuildError> {
        let reference = parse(&format!("{repository}:{TAG}"))?;
        Ok(Self {
            host,
            registry: Registry::new(host, &reference.registry)?,
            reference,
            store: ImageStore::open(&host.cache_dir),
            cancel,
        })
    }

    /// Takes into the cache what is remembered and not in it.
    pub(crate) async fn recall(&self) -> Result<(), BuildError> {
        if self.registry.exists(&self.reference).await?.is_none() {
            return Ok(());
        }
        let platform = Platform::host();
        let pull = Pull {
            store: self.store.blobs(),
            reference: &self.reference,
            platform: &platform,
            layers: true,
            mounts: &Mounts::default(),
            parallelism: 1,
            progress: &|_| (),
            cancel: self.cancel,
        };
        let pulled = self.registry.pull_image(pull).await?;
        let read = || -> io::Result<()> {
            let image = Image::read(self.store.blobs(), &pulled.digest, &platform)?;
            let layers = image.layers.iter();
            layers
                .into_iter()
                .try_for_each(|layer| unpack(self.store.blobs(), layer, &self.host.cache_dir))
        };
        tokio::task::block_in_place(read).map_err(|error| unwritten(&error))
    }

    /// What the cache has that can be remembered.
    pub(crate) fn known(&self) -> BTreeSet<String> {
        let files = files(&self.host.cache_dir);
        files.into_iter().map(|(name, _)| name).collect()
    }

    /// Remembers what the cache has, if that is more than it was.
    pub(crate) async fn keep(&self, before: &BTreeSet<String>) -> Result<(), BuildError> {
        if self.known().is_subset(before) {
            return Ok(());
        }
        // Others may have learned something in the meantime.
        self.recall().await?;
        let layer = tokio::task::block_in_place(|| self.pack())?;
        let image = Image {
            platform: Platform::host(),
            runtime: Runtime::default(),
            layers: vec![layer],
            annotations: std::collections::BTreeMap::new(),
        };
        let image = image.write(self.store.blobs());
        let push = Push {
            store: self.store.blobs(),
            source: &Stored,
            image: &image.map_err(|error| unwritten(&error))?,
            reference: &self.reference,
            extra_tags: &[],
            mounts: &Mounts::default(),
            asked: &BTreeMap::new(),
            parallelism: 1,
            progress: &|_| (),
            cancel: self.cancel,
        };
        self.registry.push_image(push).await?;
        Ok(())
    }

    fn pack(&self) -> Result<Layer, LayerError> {
        let out = self.store.blobs().writer()?;
        let mut writer = LayerWriter::new(out, Compression::GzipSingle, contract_parents)?;
        for (name, size) in files(&self.host.cache_dir) {
            let mut file = fs_err::File::open(self.host.cache_dir.join(&name))?;
            writer.file(name.as_bytes(), &Metadata::new(0o644, 0), size, &mut file)?;
        }
        let (out, info) = writer.finish()?;
        out.commit(&info.digest)?;
        Ok(Layer::new(&info, REPOSITORY))
    }
}

/// The files of the cache that are remembered, with their sizes, sorted by name.
fn files(cache: &Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for folder in FOLDERS {
        let entries = fs_err::read_dir(cache.join(folder)).into_iter().flatten();
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = format!("{folder}/{}", entry.file_name().to_str()?);
                let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
                let fits = metadata.len() <= FILE && is_remembered(&name);
                fits.then_some((metadata.modified().ok()?, name, metadata.len()))
            })
            .collect();
        files.sort();
        let newest = files.into_iter().rev().take(FILES);
        all.extend(newest.map(|(_, name, size)| (name, size)));
    }
    all.sort();
    all
}

/// Whether a path is that of a file which is remembered: of one of the folders, and no lock or partial file.
fn is_remembered(path: &str) -> bool {
    let Some((folder, name)) = path.split_once('/') else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-%".contains(c);
    FOLDERS.contains(&folder)
        && name
            .strip_suffix(".json")
            .is_some_and(|stem| !stem.is_empty())
        && !name.starts_with('.')
        && name.chars().all(plain)
}

/// Takes the files of a layer into the cache, but for those that it has.
fn unpack(blobs: &BlobStore, layer: &Layer, cache: &Path) -> io::Result<()> {
    let blob = blobs.open_blob(&layer.digest)?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(blob).take(ALL));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let is_file = entry.header().entry_type().is_file();
        let path = cache.join(&name);
        if !is_file || entry.size() > FILE || !is_remembered(&name) || path.exists() {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        write_atomically(&path, &content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_remembered() {
        for (path, expected) in [
            ("layers/0a1b.json", true),
            ("registries/registry.example%3a5000.json", true),
            ("layers/0a1b.lock", false),
            ("layers/.0a1b.json", false),
            ("layers/../blobs/x.json", false),
            ("locks/0a1b.json", false),
            ("layers", false),
            ("/layers/0a1b.json", false),
        ] {
            assert_eq!(is_remembered(path), expected, "{path}");
        }
    }
}
