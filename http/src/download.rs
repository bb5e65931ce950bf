//! Downloads: streamed into a temporary file beside the destination, resumed where they broke off,
//! verified, and only then given their name.

use std::io::{Seek as _, Write as _};
use std::path::Path;

use futures::StreamExt as _;
use imagespec_core::digest::Digest;
use reqwest::header::RANGE;
use reqwest::{RequestBuilder, StatusCode};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use url::Url;

use crate::Client;
use crate::error::{HttpError, redacted};

/// What a download must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Digest of the content, where it is known.
    pub digest: Option<Digest>,
    /// Length in bytes, where it is known.
    pub size: Option<u64>,
    /// The most bytes it may have where the length is not known.
    pub limit: u64,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            digest: None,
            size: None,
            limit: 16 << 30,
        }
    }
}

struct Partial {
    file: NamedTempFile,
    hash: Sha256,
    done: u64,
}

impl Client {
    /// Downloads `url` to `to`, which appears only when it is complete and has the expected digest and size.
    /// `progress` is told how many bytes there are so far. Dropping the future leaves nothing behind.
    pub async fn download(
        &self,
        url: &Url,
        digest: Option<&Digest>,
        size: Option<u64>,
        to: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Digest, u64), HttpError> {
        let expected = Expected {
            digest: digest.copied(),
            size,
            ..Expected::default()
        };
        self.download_with(
            |client| client.get(url.clone()),
            url,
            expected,
            to,
            progress,
        )
        .await
    }

    /// As [`Client::download`], for a request that needs more than a URL.
    pub async fn download_with(
        &self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
        url: &Url,
        expected: Expected,
        to: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Digest, u64), HttpError> {
        let folder = to.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let file = tempfile::Builder::new()
            .prefix(".download-")
            .tempfile_in(folder)?;
        let mut partial = Partial {
            file,
            hash: Sha256::new(),
            done: 0,
        };
        let mut tried = 0;
        loop {
            tried += 1;
            match self
                .attempt(&request, url, expected, &mut partial, progress)
                .await
            {
                Ok(()) => break,
                Err(error @ HttpError::Transport { .. }) => match self.retry().wait(tried, None) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        let found = Digest::from_bytes(partial.hash.finalize().into());
        if let Some(digest) = expected.digest.filter(|digest| *digest != found) {
            return Err(HttpError::Mismatch {
                url: redacted(url),
                expected: digest,
                found,
            });
        }
        partial.file.as_file().sync_all()?;
        partial.file.persist(to).map_err(|error| error.error)?;
        Ok((found, partial.done))
    }

    async fn attempt(
        &self,
        request: &impl Fn(&reqwest::Client) -> RequestBuilder,
        url: &Url,
        expected: Expected,
        partial: &mut Partial,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HttpError> {
        let from = partial.done;
        let response = self
            .send_ok(|client| match from {
                0 => request(client),
                from => request(client).header(RANGE, format!("bytes={from}-")),
            })
            .await?;
        if from > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            partial.restart()?;
        }
        let limit = expected.size.unwrap_or(expected.limit);
        let announced = response.content_length().map(|rest| partial.done + rest);
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| HttpError::transport(url, error))?;
            partial.done += chunk.len() as u64;
            if partial.done > limit {
                return Err(HttpError::TooLarge {
                    url: redacted(url),
                    limit,
                });
            }
            partial.hash.update(&chunk);
            partial.file.write_all(&chunk)?;
            progress(partial.done);
        }
        match expected.size.or(announced) {
            Some(size) if partial.done < size => {
                // A server that ends early and calls it complete: the digest says whether it is.
                let error = std::io::Error::new(
                    std::io::ErrorKind::UnexpectedEof,
                    "the download ended early",
                );
                if expected.digest.is_none() {
                    Err(error.into())
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}

impl Partial {
    fn restart(&mut self) -> std::io::Result<()> {
        self.file.as_file_mut().set_len(0)?;
        self.file.rewind()?;
        self.hash = Sha256::new();
        self.done = 0;
        Ok(())
    }
}
