//! Downloads: streamed into a temporary file beside the destination, resumed where they broke off,
//! verified, and only then given their name.

use std::io::{Seek as _, Write as _};
use std::path::Path;

use imagespec_core::digest::Digest;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use url::Url;

use crate::Client;
use crate::body::Body;
use crate::error::{HttpError, redacted};

/// How many bytes a try has to bring so that it does not count as failed.
const NEARER: u64 = 1 << 20;

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

/// A download under way. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Download {
    expected: Expected,
    file: NamedTempFile,
    hash: Sha256,
    done: u64,
    /// Whether the content so far came in several answers.
    pieced: bool,
}

/// What is downloaded: complete and verified, in a temporary file.
#[derive(Debug)]
pub struct Downloaded {
    /// Where it is, until it is given a name or dropped.
    pub file: NamedTempFile,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// How one answer ended.
enum End {
    Complete,
    /// It broke off, or did not start.
    Broken(HttpError),
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
        let mut download = Download::new(to.parent().unwrap_or(Path::new(".")), expected)?;
        download.run(self, request, url, progress).await?;
        let done = download.finish()?;
        done.file.persist(to).map_err(|error| error.error)?;
        Ok((done.digest, done.size))
    }
}

impl Download {
    /// A download into a temporary file in `folder`, which is made if need be.
    pub fn new(folder: &Path, expected: Expected) -> std::io::Result<Self> {
        fs_err::create_dir_all(folder)?;
        let file = tempfile::Builder::new()
            .prefix(".download-")
            .tempfile_in(folder)?;
        Ok(Self {
            expected,
            file,
            hash: Sha256::new(),
            done: 0,
            pieced: false,
        })
    }

    /// Fetches what is missing, again and again while that brings it nearer. After an error it may be run
    /// again, with another request for the same content, and goes on where it is.
    pub async fn run(
        &mut self,
        client: &Client,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
        url: &Url,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HttpError> {
        let mut tries = client.retry().tries();
        let mut restarted = false;
        loop {
            let before = self.done;
            match self.attempt(client, &request, url, progress).await? {
                End::Complete if self.is_right() => return Ok(()),
                // Pieces that do not fit together: the server may have answered from different copies.
                End::Complete if self.pieced && !restarted => {
                    restarted = true;
                    self.restart()?;
                }
                End::Complete => return Err(self.mismatch(url)),
                End::Broken(error) => {
                    if self.done >= before + NEARER {
                        tries.advanced();
                    }
                    if !tries.again(None).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// How many bytes there are.
    pub const fn size(&self) -> u64 {
        self.done
    }

    /// The content, on disk, once [`Download::run`] has succeeded.
    pub fn finish(self) -> std::io::Result<Downloaded> {
        self.file.as_file().sync_all()?;
        Ok(Downloaded {
            file: self.file,
            digest: Digest::from_bytes(self.hash.finalize().into()),
            size: self.done,
        })
    }

    async fn attempt(
        &mut self,
        client: &Client,
        request: &impl Fn(&reqwest::Client) -> RequestBuilder,
        url: &Url,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<End, HttpError> {
        let from = self.done;
        let answer = client
            .send_ok(|client| match from {
                0 => request(client),
                from => request(client).header(RANGE, format!("bytes={from}-")),
            })
            .await;
        let response = match answer {
            Ok(response) => response,
            Err(HttpError::Status {
                status: StatusCode::RANGE_NOT_SATISFIABLE,
                ..
            }) if from > 0 => {
                self.restart()?;
                client.send_ok(request).await?
            }
            Err(error) => return Err(error),
        };
        if self.done > 0 && !continues(&response, self.done) {
            self.restart()?;
        }
        self.pieced |= self.done > 0;
        let announced = response.content_length().map(|rest| self.done + rest);
        let mut body = Body::new(response, client.retry().patience);
        loop {
            match body.next().await {
                Ok(Some(chunk)) => self.take(&chunk, url)?,
                Ok(None) => break,
                Err(error) => return Ok(End::Broken(error)),
            }
            progress(self.done);
        }
        match self.expected.size.or(announced) {
            // A server that ends early and calls it complete.
            Some(size) if self.done < size => Ok(End::Broken(HttpError::Truncated {
                url: redacted(url),
                expected: size,
                found: self.done,
            })),
            _ => Ok(End::Complete),
        }
    }

    fn take(&mut self, chunk: &[u8], url: &Url) -> Result<(), HttpError> {
        let limit = self.expected.size.unwrap_or(self.expected.limit);
        self.done += chunk.len() as u64;
        if self.done > limit {
            return Err(HttpError::TooLarge {
                url: redacted(url),
                limit,
            });
        }
        self.hash.update(chunk);
        Ok(self.file.write_all(chunk)?)
    }

    fn found(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }

    fn is_right(&self) -> bool {
        self.expected
            .digest
            .is_none_or(|digest| digest == self.found())
    }

    fn mismatch(&self, url: &Url) -> HttpError {
        let found = self.found();
        HttpError::Mismatch {
            url: redacted(url),
            expected: self.expected.digest.unwrap_or(found),
            found,
        }
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.as_file_mut().set_len(0)?;
        self.file.rewind()?;
        self.hash = Sha256::new();
        self.done = 0;
        self.pieced = false;
        Ok(())
    }
}

/// Whether an answer is the rest of what there is, from byte `from` on.
fn continues(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    let start = range
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'))
        .and_then(|(start, _)| start.trim().parse::<u64>().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && start.is_none_or(|start| start == from)
}
