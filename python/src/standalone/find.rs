//! Distributions on this machine: what uv has, and what it downloaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::PackageIndex;
use imagespec_core::platform::Platform;
use imagespec_core::resolve::debian_pythons;
use imagespec_oci::store::publish;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::index::{Settings, redacted};
use crate::uv::Uv;

/// A distribution of `CPython`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standalone {
    /// What uv calls it: `cpython-3.12.11-linux-x86_64-gnu`.
    pub name: String,
    /// Digest of its archive.
    pub digest: Digest,
    /// Size of its archive, in bytes.
    pub size: u64,
}

impl Standalone {
    /// `3.12.11`.
    pub fn version(&self) -> &str {
        self.name.split('-').nth(1).unwrap_or_default()
    }
}

/// Where the archive of a distribution is kept, whether or not it is there.
pub fn cached(host: &Host, standalone: &Standalone) -> PathBuf {
    folder(host).join(format!("{}.tar.gz", standalone.digest.hex()))
}

/// The newest distribution of a version (`3.12`) for a platform, whose archive is in the cache then.
pub async fn find(
    host: &Host,
    version: &str,
    platform: &Platform,
) -> Result<Standalone, BuildError> {
    let unknown = || {
        BuildError::input(format!(
            "the `python_version` `{version}` is not to be had for the platform `{platform}`"
        ))
        .field("python_version")
    };
    let platform = uv_platform(platform).ok_or_else(|| unknown().hint(of_debian()))?;
    let uv = Uv::find(host).await?;
    match download(host, &uv, &format!("cpython-{version}-{platform}")).await? {
        Found::Here(standalone) => Ok(standalone),
        Found::Unknown => {
            let known = versions(host, &uv, platform).await.join(", ");
            let error = unknown().hint(of_debian());
            Err(if known.is_empty() {
                error
            } else {
                error.hint(format!("versions that uv downloads: {known}"))
            })
        }
        Found::Unreachable(said) => Err(BuildError::unavailable(format!(
            "uv cannot download the `python_version` `{version}`, which Debian does not have"
        ))
        .field("python_version")
        .caused_by(&std::io::Error::other(said))
        .hint(of_debian())
        .hint("name a mirror of python-build-standalone: `UV_PYTHON_INSTALL_MIRROR`")
        .hint("or name a `base_image` that has the wanted Python")),
    }
}

/// Downloads a distribution that was found before, unless it is here.
pub async fn fetch(host: &Host, standalone: &Standalone) -> Result<(), BuildError> {
    if cached(host, standalone).is_file() {
        return Ok(());
    }
    let uv = Uv::find(host).await?;
    let gone = || {
        let name = &standalone.name;
        BuildError::unavailable(format!("uv has no longer what it called `{name}`"))
            .field("python_version")
            .hint("`--pull` takes what it has now")
    };
    match download(host, &uv, &standalone.name).await? {
        Found::Here(found) if found.digest == standalone.digest => Ok(()),
        Found::Here(_) | Found::Unknown => Err(gone()),
        Found::Unreachable(said) => Err(gone().caused_by(&std::io::Error::other(said))),
    }
}

enum Found {
    Here(Standalone),
    /// uv knows of none.
    Unknown,
    /// It cannot be downloaded; what uv said.
    Unreachable(String),
}

/// Has uv download and verify a distribution, and keeps its archive. What uv unpacks is thrown away: it writes
/// the place where it does into it.
async fn download(host: &Host, uv: &Uv, request: &str) -> Result<Found, BuildError> {
    let failed = |error: std::io::Error| {
        BuildError::failed("cannot keep Python in the cache").caused_by(&error)
    };
    fs_err::create_dir_all(folder(host)).map_err(failed)?;
    let work = tempfile::Builder::new()
        .prefix(".download-")
        .tempdir_in(folder(host))
        .map_err(failed)?;
    let (archives, installed) = (work.path().join("archives"), work.path().join("installed"));
    let mut env = environment(host)?;
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    env.insert("UV_PYTHON_CACHE_DIR".to_owned(), shown(&archives));
    env.insert("UV_PYTHON_INSTALL_DIR".to_owned(), shown(&installed));
    let arguments = ["python", "install", "--no-bin", request].map(str::to_owned);
    let output = uv.run(&arguments, work.path(), &env, None).await?;
    if !output.status.success() {
        let said = redacted(String::from_utf8_lossy(&output.stderr).trim());
        return Ok(if said.contains("No download found") {
            Found::Unknown
        } else {
            Found::Unreachable(said)
        });
    }
    let is_link = |path: &PathBuf| path.is_symlink();
    let name = only(&installed, |path| path.is_dir() && !is_link(path)).map_err(failed)?;
    let archive = only(&archives, |path| path.is_file()).map_err(failed)?;
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    let mut file = fs_err::File::open(&archive).map_err(failed)?;
    let (digest, size) = Digest::of_reader(&mut file).map_err(failed)?;
    let standalone = Standalone {
        name: name.into_owned(),
        digest,
        size,
    };
    let to = cached(host, &standalone);
    tokio::task::spawn_blocking(move || {
        let path = tempfile::TempPath::try_from_path(archive)?;
        publish(NamedTempFile::from_parts(file.into_file(), path), &to)
    })
    .await
    .map_err(|error| failed(std::io::Error::other(error)))?
    .map_err(failed)?;
    Ok(Found::Here(standalone))
}

/// The one entry of a folder that has a name of its own and is of a kind.
fn only(folder: &Path, is: impl Fn(&PathBuf) -> bool) -> std::io::Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') && is(&entry.path()) {
            found.push(entry.path());
        }
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        _ => Err(std::io::Error::other(format!(
            "uv left {} files, and one was expected",
            found.len()
        ))),
    }
}

/// The minor versions that uv can download for a platform, oldest first.
async fn versions(host: &Host, uv: &Uv, platform: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Download {
        key: String,
        implementation: String,
        variant: String,
        version_parts: Parts,
    }
    #[derive(Deserialize)]
    struct Parts {
        major: u32,
        minor: u32,
    }
    let arguments = [
        "python",
        "list",
        "--only-downloads",
        "--all-platforms",
        "--all-arches",
        "--output-format",
        "json",
    ]
    .map(str::to_owned);
    let Ok(env) = environment(host) else {
        return Vec::new();
    };
    let Ok(output) = uv.run(&arguments, &host.cache_dir, &env, None).await else {
        return Vec::new();
    };
    let downloads: Vec<Download> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let downloads = downloads.into_iter().filter(|download| {
        download.implementation == "cpython"
            && download.variant == "default"
            && download.key.ends_with(platform)
    });
    let parts = downloads.map(|download| download.version_parts);
    let numbers: BTreeSet<_> = parts.map(|parts| (parts.major, parts.minor)).collect();
    let text = |(major, minor)| format!("{major}.{minor}");
    numbers.into_iter().map(text).collect()
}

fn environment(host: &Host) -> Result<BTreeMap<String, String>, BuildError> {
    let settings = Settings::of(host, &PackageIndex::default(), &IndexLogins::default())?;
    let mut env = settings.env;
    // What is asked for here is nothing else.
    env.insert("UV_PYTHON_DOWNLOADS".to_owned(), "manual".to_owned());
    Ok(env)
}

fn folder(host: &Host) -> PathBuf {
    host.cache_dir.join("pythons")
}

fn of_debian() -> String {
    let versions: Vec<_> = debian_pythons().collect();
    format!("versions that Debian has: {}", versions.join(", "))
}

/// How uv's names of distributions for a platform end.
fn uv_platform(platform: &Platform) -> Option<&'static str> {
    Some(
        match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("amd64", None) => "linux-x86_64-gnu",
            ("arm64", None) => "linux-aarch64-gnu",
            ("arm", Some("v7")) => "linux-armv7-gnueabihf",
            ("ppc64le", None) => "linux-powerpc64le-gnu",
            ("s390x", None) => "linux-s390x-gnu",
            ("riscv64", None) => "linux-riscv64-gnu",
            _ => return None,
        },
    )
}
