//! Wheels on this machine: fetched by digest, several at a time.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_http::{Client, Expected};
use imagespec_oci::store::publish;
use url::Url;

use crate::index::Credentials;
use crate::lock::LockedWheel;

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
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, BuildError> {
    let all = AtomicU64::new(0);
    let credentials = &Credentials::of(host);
    let one = |wheel: &LockedWheel| {
        let (wheel, to, all) = (wheel.clone(), cached(host, wheel), &all);
        async move {
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
                    .context(format!("cannot fetch the wheel `{}`", wheel.filename))
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

fn copy(from: &Path, to: &Path, expected: &Digest) -> Result<(), BuildError> {
    let read = || -> io::Result<bool> {
        let folder = to.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(".copy-")
            .tempfile_in(folder)?;
        io::copy(&mut fs_err::File::open(from)?.take(16 << 30), &mut file)?;
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
