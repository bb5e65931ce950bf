//! Wheels on this machine: fetched by digest, several at a time.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_http::{Client, Expected};
use imagespec_oci::store::publish;
use url::Url;

use crate::index::Credentials;
use crate::lock::{LockedWheel, normalised};
use crate::wheel::Wheel;

/// The largest file of a package, in bytes.
const LARGEST: u64 = 16 << 30;

/// How often to look whether another process has fetched a wheel.
const LOOK: Duration = Duration::from_millis(50);

/// Where a wheel is kept, whether or not it is there.
pub fn cached(host: &Host, wheel: &LockedWheel) -> PathBuf {
    host.cache_dir
        .join("wheels")
        .join(wheel.digest.hex())
        .join(&wheel.filename)
}

/// Fetches the wheels that are not here, at most `jobs` at once, and returns how many bytes that took. Each is
/// there whole and verified, or not at all. `progress` is told the bytes so far.
pub async fn fetch(
    host: &Host,
    client: &Client,
    wheels: &[LockedWheel],
    logins: &IndexLogins,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, BuildError> {
    let all = AtomicU64::new(0);
    let credentials = &Credentials::of(host, logins);
    let one = |wheel: &LockedWheel| {
        let (wheel, to, all) = (wheel.clone(), cached(host, wheel), &all);
        async move {
            if to.is_file() {
                return Ok(());
            }
            let _alone = alone(&to).await.map_err(|error| {
                BuildError::failed("cannot keep wheels in the cache").caused_by(&error)
            })?;
            if to.is_file() {
                return Ok(());
            }
            let done = AtomicU64::new(0);
            let advance = |now: u64| {
                let before = done.swap(now, Ordering::Relaxed);
                progress(
                    all.fetch_add(now.saturating_sub(before), Ordering::Relaxed)
                        + now.saturating_sub(before),
                );
            };
            let result = match Url::parse(&wheel.location) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {
                    let expected = Expected {
                        digest: Some(wheel.digest),
                        size: wheel.size,
                        ..Expected::default()
                    };
                    // Sent to the server that the machine has them for; a redirect elsewhere drops them.
                    let login = credentials.get(&url);
                    let get = |client: &reqwest::Client| match login {
                        Some((user, password)) => {
                            client.get(url.clone()).basic_auth(user, password.as_ref())
                        }
                        None => client.get(url.clone()),
                    };
                    let answer = client
                        .download_with(get, &url, expected, &to, &advance)
                        .await;
                    answer.map(|_| ()).map_err(BuildError::from)
                }
                Ok(url) if url.scheme() == "file" => url
                    .to_file_path()
                    .map_err(|()| BuildError::failed(format!("not the URL of a file: `{url}`")))
                    .and_then(|from| copy(&from, &to, &wheel.digest)),
                _ => copy(Path::new(&wheel.location), &to, &wheel.digest),
            };
            result.map_err(|error| {
                error
                    .context(format!("cannot fetch `{}`", wheel.filename))
                    .field("requirements")
            })
        }
    };
    stream::iter(wheels.iter().map(one))
        .buffer_unordered(jobs.max(1))
        .try_collect::<Vec<()>>()
        .await?;
    Ok(all.into_inner())
}

/// Keeps a wheel that was built, under its digest. Nothing is believed of the file, not even that it is one.
pub fn adopt(host: &Host, wheel: &Path, filename: &str) -> io::Result<LockedWheel> {
    if !fs_err::symlink_metadata(wheel)?.is_file() {
        return Err(io::Error::other("what was built is no file"));
    }
    let folder = host.cache_dir.join("wheels");
    fs_err::create_dir_all(&folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".built-")
        .tempfile_in(&folder)?;
    let size = io::copy(&mut fs_err::File::open(wheel)?.take(LARGEST), &mut file)?;
    let (digest, _) = Digest::of_reader(&mut fs_err::File::open(file.path())?)?;
    let mut adopted = LockedWheel {
        name: String::new(),
        version: String::new(),
        filename: filename.to_owned(),
        location: String::new(),
        digest,
        size: Some(size),
    };
    {
        let opened = Wheel::open(file.path()).map_err(io::Error::other)?;
        adopted.name = normalised(opened.distribution());
        opened.version().clone_into(&mut adopted.version);
    }
    let to = cached(host, &adopted);
    adopted.location = to.to_string_lossy().into_owned();
    fs_err::create_dir_all(to.parent().unwrap_or(&folder))?;
    publish(file, &to)?;
    Ok(adopted)
}

/// Held by the one process that fetches the wheel `to`, until it is dropped or its process ends. Dropping the
/// future stops waiting.
async fn alone(to: &Path) -> io::Result<File> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let lock = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(".lock"))?
        .into_file();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn copy(from: &Path, to: &Path, expected: &Digest) -> Result<(), BuildError> {
    let read = || -> io::Result<bool> {
        let folder = to.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(".copy-")
            .tempfile_in(folder)?;
        io::copy(&mut fs_err::File::open(from)?.take(LARGEST), &mut file)?;
        let (found, _) = Digest::of_reader(&mut fs_err::File::open(file.path())?)?;
        if found == *expected {
            publish(file, to)?;
        }
        Ok(found == *expected)
    };
    match read() {
        Ok(true) => Ok(()),
        Ok(false) => Err(BuildError::failed(format!(
            "the file has another digest than {expected}"
        ))),
        Err(error) => Err(BuildError::failed("the file cannot be copied").caused_by(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_adopted_only_if_it_is_a_wheel() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = Host {
            cache_dir: folder.path().join("cache"),
            ..Host::default()
        };
        let name = "a-1-py3-none-any.whl";
        let built = folder.path().join(name);
        fs_err::write(&built, "no wheel").expect("a file");
        adopt(&host, &built, name).expect_err("no archive");
        let link = folder.path().join("link.whl");
        fs_err::os::unix::fs::symlink(&built, &link).expect("a link");
        let error = adopt(&host, &link, name).expect_err("a link");
        assert_eq!(error.to_string(), "what was built is no file");
        let left = fs_err::read_dir(host.cache_dir.join("wheels")).expect("a folder");
        assert_eq!(left.count(), 0, "nothing is kept");
    }
}
