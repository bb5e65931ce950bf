//! The archive: from the machine's sources to a verified suite, and from packages to verified files.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::host::Host;
use imagespec_http::{Client, HttpError};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::closure::{self, Installed};
use crate::error::DebianError;
use crate::index::Index;
use crate::package::{Package, Pocket};
use crate::release::Problem;
use crate::source::{SignedBy, Source};
use crate::sources::Sources;

/// Packages downloaded at a time.
const PARALLEL: usize = 8;
/// Memory for the dictionary of an xz stream, in KiB.
pub(crate) const XZ_MEMORY: u32 = 128 << 10;

/// The `Origin` of Ubuntu's archive.
pub(crate) const UBUNTU: &str = "Ubuntu";

/// Where to look instead of the machine's own configuration, and for what.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// Root of the machine whose apt configuration counts.
    pub root: PathBuf,
    /// A mirror to use instead of the machine's sources.
    pub mirror: Option<Url>,
    /// A keyring to trust instead of the machine's own.
    pub keyring: Option<PathBuf>,
    /// The `Origin` that a signed release must have.
    pub origin: String,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            root: "/".into(),
            mirror: None,
            keyring: None,
            origin: "Debian".into(),
        }
    }
}

impl ArchiveOptions {
    /// Options of builders that say where to look, each with what it means.
    pub const OPTIONS: [(&str, &str); 2] = [
        (
            "debian_mirror",
            "URL of the Debian archive to use instead of the machine's",
        ),
        ("debian_keyring", "file of the keys that sign that archive"),
    ];

    /// Sets one of [`Self::OPTIONS`]; `None` if it is none of them. An error is what was expected.
    pub fn set(&mut self, name: &str, value: &str) -> Option<Result<(), &'static str>> {
        match name {
            "debian_mirror" => Some(match value.parse() {
                Ok(url) => {
                    self.mirror = Some(url);
                    Ok(())
                }
                Err(_) => Err("a URL"),
            }),
            "debian_keyring" => {
                self.keyring = Some(value.into());
                Some(Ok(()))
            }
            _ => None,
        }
    }
}

/// A Debian archive, as this machine reaches it.
#[derive(Debug, Clone)]
pub struct Archive {
    pub(crate) client: Client,
    pub(crate) cache: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) origin: String,
}

/// A suite of the archive for one architecture.
#[derive(Debug)]
pub struct Suite {
    /// Code name: `bookworm`.
    pub name: String,
    /// Architecture, as Debian names it.
    pub architecture: String,
    /// Digest of the signed releases of all its pockets: what is installable depends on nothing else.
    pub digest: Digest,
    index: Index,
}

impl Archive {
    /// Reads where the archive is. Contacts nothing.
    pub fn open(
        client: Client,
        host: &Host,
        options: &ArchiveOptions,
    ) -> Result<Self, DebianError> {
        let mut sources = Sources::read(&options.root)?;
        sources.serve(&options.origin);
        if let Some(mirror) = &options.mirror {
            sources.replace_mirror(mirror, &options.origin);
        }
        if let Some(keyring) = &options.keyring {
            for source in &mut sources.sources {
                source.signed_by = SignedBy::file(keyring.clone());
            }
        }
        Ok(Self {
            client,
            cache: host.cache_dir.join("debian"),
            sources,
            origin: options.origin.clone(),
        })
    }

    /// A suite by its code name, for an architecture as Debian names it: fetches and verifies its releases,
    /// and the indexes they name unless they are in the cache.
    pub async fn suite(&self, name: &str, architecture: &str) -> Result<Suite, DebianError> {
        let mut index = Index::new(architecture);
        let mut digest = Framed::new("debian suite");
        for pocket in Pocket::ALL {
            let Some((source, release)) = self.release(name, pocket).await? else {
                continue;
            };
            digest.digest(&release.digest);
            let components = components(&self.origin).iter();
            let indexes: Vec<_> = components
                .filter_map(|component| release.packages(component, architecture))
                .collect();
            if indexes.is_empty() {
                return Err(DebianError::Architecture {
                    suite: name.to_owned(),
                    architecture: architecture.to_owned(),
                });
            }
            for (path, sha256, size) in indexes {
                let file = self
                    .index_file(source, &pocket.suite(name), &path, sha256, size)
                    .await?;
                index =
                    tokio::task::spawn_blocking(move || read_index(index, &file, &path, pocket))
                        .await
                        .map_err(|error| DebianError::Io(error.into()))??;
            }
        }
        Ok(Suite {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            digest: digest.finish(),
            index,
        })
    }

    async fn index_file(
        &self,
        source: &Source,
        suite: &str,
        path: &str,
        sha256: Digest,
        size: u64,
    ) -> Result<PathBuf, DebianError> {
        let file = self.cache.join("indexes").join(sha256.hex());
        if file.is_file() {
            return Ok(file);
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let by_hash = format!("dists/{suite}/{folder}/by-hash/SHA256/{}", sha256.hex());
        let by_name = format!("dists/{suite}/{path}");
        for address in [by_hash, by_name] {
            let url = join(&source.url, &address)?;
            match self
                .client
                .download(&url, Some(&sha256), Some(size), &file, &|_| {})
                .await
            {
                Err(error) if is_absent(&error) => {}
                result => {
                    result?;
                    return Ok(file);
                }
            }
        }
        Err(DebianError::Release {
            url: imagespec_http::redacted(&source.url),
            origin: source.origin.clone(),
            problem: Problem::damaged(format!("it names an index that is not there: `{path}`")),
        })
    }

    /// The files of `packages`, in their order: from the cache, or downloaded into it and verified.
    /// `progress` is told of bytes as they come; dropping the future or cancelling leaves nothing half-written.
    pub async fn fetch(
        &self,
        packages: &[Package],
        progress: &(dyn Fn(u64) + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<PathBuf>, DebianError> {
        // Boxed and collected: the compiler cannot see that a stream of borrowing futures may change threads.
        let each: Vec<_> = packages
            .iter()
            .map(|package| self.fetch_one(package, progress).boxed())
            .collect();
        let all = stream::iter(each).buffered(PARALLEL).try_collect();
        tokio::select! {
            () = cancel.cancelled() => Err(DebianError::Interrupted),
            files = all => files,
        }
    }

    async fn fetch_one(
        &self,
        package: &Package,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PathBuf, DebianError> {
        let file = self.package_file(package);
        if fs_err::metadata(&file).is_ok_and(|found| found.len() == package.size) {
            progress(package.size);
            return Ok(file);
        }
        let mut last = DebianError::NoFile {
            path: package.filename.clone(),
        };
        for source in &self.sources.sources {
            if !source.has(package.pocket) {
                continue;
            }
            let url = join(&source.url, &package.filename)?;
            let seen = std::sync::atomic::AtomicU64::new(0);
            let report = |done: u64| {
                let before = seen.swap(done, std::sync::atomic::Ordering::Relaxed);
                progress(done.saturating_sub(before));
            };
            let (digest, size) = (Some(&package.sha256), Some(package.size));
            match self
                .client
                .download(&url, digest, size, &file, &report)
                .await
            {
                Ok(_) => return Ok(file),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// The `Origin` that its releases must have.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where the file of a package is, or will be, in the cache.
    pub fn package_file(&self, package: &Package) -> PathBuf {
        self.cache
            .join("packages")
            .join(format!("{}.deb", package.sha256.hex()))
    }
}

impl Suite {
    /// The packages to add to `installed` so that all of `names` are there, dependencies first.
    pub fn closure(
        &self,
        names: &[String],
        installed: &[Installed],
    ) -> Result<Vec<Package>, DebianError> {
        closure::closure(&self.index, &self.name, names, installed)
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}

/// The parts of an archive that images of a distribution get their packages from, as its own images do.
fn components(origin: &str) -> &'static [&'static str] {
    match origin {
        UBUNTU => &["main", "restricted", "universe", "multiverse"],
        _ => &["main"],
    }
}

pub(crate) fn is_absent(error: &HttpError) -> bool {
    error
        .status()
        .is_some_and(|status| matches!(status.as_u16(), 404 | 410))
}

pub(crate) fn join(root: &Url, path: &str) -> Result<Url, DebianError> {
    root.join(path).map_err(|error| DebianError::Sources {
        path: imagespec_http::redacted(root),
        problem: error.to_string(),
    })
}

fn read_index(
    mut index: Index,
    file: &Path,
    name: &str,
    pocket: Pocket,
) -> Result<Index, DebianError> {
    let file = fs_err::File::open(file)?;
    let reader: Box<dyn Read> = if Path::new(name).extension() == Some("xz".as_ref()) {
        Box::new(lzma_rust2::XzReader::new_mem_limit(
            BufReader::new(file),
            true,
            XZ_MEMORY,
        ))
    } else {
        Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(file)))
    };
    // A bound on what a small file may unpack to: ten times the largest index there is.
    let mut reader = BufReader::with_capacity(64 << 10, reader.take(1 << 30));
    index.add(&mut reader, pocket)?;
    Ok(index)
}
