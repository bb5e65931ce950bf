//! Blobs of a registry.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use imagespec_core::digest::Digest;
use imagespec_http::{Expected, HttpError, Retry};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use url::Url;

use super::auth::{Grant, Scope};
use super::{Registry, RegistryError};
use crate::image::Descriptor;
use crate::store::{BlobStore, seal};

const BUFFER: usize = 256 * 1024;

/// How one try to upload a blob ended.
enum Attempt {
    Done,
    /// The upload is lost; another may succeed.
    Lost(Box<Lost>),
}

/// Why an upload is lost: what the registry answered, or that it did not.
enum Lost {
    Answered(Response),
    Unanswered(HttpError),
}

impl Registry {
    /// The length of a blob in bytes, if the repository has it.
    pub async fn head_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<Option<u64>, RegistryError> {
        self.head_blob_as(&Scope::pull(repository), digest).await
    }

    async fn head_blob_as(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let url = self.url(&scope.repository, &format!("blobs/{digest}"));
        let response = self.send(scope, |client| client.head(url.clone())).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(length(&response).unwrap_or(0))),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.unexpected(scope, "a look for a blob", response).await),
        }
    }

    /// Fetches a blob into `store`, unless it is there. It is verified, and never longer than `blob` says.
    /// `progress` is told of further bytes.
    pub async fn get_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        store: &BlobStore,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        if store.contains(&blob.digest)? == Some(blob.size) {
            progress(blob.size);
            return Ok(());
        }
        let scope = Scope::pull(repository);
        match self.download(&scope, blob, store, progress).await {
            Err(HttpError::Status {
                status: StatusCode::UNAUTHORIZED,
                ..
            }) => {
                // The token has expired, or there was none yet: this asks for one.
                if self.head_blob_as(&scope, &blob.digest).await?.is_none() {
                    return Err(RegistryError::NotFound(blob.digest.to_string()));
                }
                self.download(&scope, blob, store, progress).await
            }
            result => result,
        }
        .map_err(|error| self.of_download(&scope, blob, error))
    }

    async fn download(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        store: &BlobStore,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), HttpError> {
        let url = self.url(&scope.repository, &format!("blobs/{}", blob.digest));
        let grant = self.granted(scope).await;
        let expected = Expected {
            digest: Some(blob.digest),
            size: Some(blob.size),
            limit: blob.size,
        };
        let meter = Meter::new(progress);
        let request =
            |client: &reqwest::Client| Grant::attach(grant.as_ref(), client.get(url.clone()));
        let path = store.path(&blob.digest);
        let so_far = |done| meter.reach(done);
        self.inner
            .http
            .download_with(request, &url, expected, &path, &so_far)
            .await?;
        Ok(seal(&path)?)
    }

    fn of_download(&self, scope: &Scope, blob: &Descriptor, error: HttpError) -> RegistryError {
        match error {
            HttpError::Io(error) => error.into(),
            HttpError::Mismatch {
                expected, found, ..
            } => RegistryError::Mismatch { expected, found },
            HttpError::TooLarge { .. } => self.protocol("a blob is longer than it should be"),
            HttpError::Status {
                status: StatusCode::NOT_FOUND,
                ..
            } => RegistryError::NotFound(blob.digest.to_string()),
            HttpError::Status {
                status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
                ..
            } => RegistryError::Denied {
                registry: self.inner.name.clone(),
                repository: scope.repository.clone(),
            },
            error => self.unreachable(error),
        }
    }

    /// Sees to it that the repository has a blob: it may be there, or in the repository `from` of the same
    /// registry, else it is sent from `store`. Returns how many bytes were sent, 0 or all. `progress` is told
    /// of further bytes that the registry has, whichever way.
    pub async fn push_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        store: &BlobStore,
        from: Option<&str>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64, RegistryError> {
        let scope = Scope::push(repository);
        let meter = Meter::new(progress);
        if self.head_blob_as(&scope, &blob.digest).await?.is_some() {
            meter.reach(blob.size);
            return Ok(0);
        }
        let retry = Retry::default();
        let mut tried = 0;
        loop {
            tried += 1;
            let Some(location) = self.start_upload(&scope, blob, from).await? else {
                meter.reach(blob.size);
                return Ok(0);
            };
            match self.upload(&scope, blob, store, location, &meter).await? {
                Attempt::Done => {
                    meter.reach(blob.size);
                    return Ok(blob.size);
                }
                Attempt::Lost(lost) => {
                    let headers = match &*lost {
                        Lost::Answered(response) => Some(response.headers()),
                        Lost::Unanswered(_) => None,
                    };
                    match (retry.wait(tried, headers), *lost) {
                        (Some(wait), _) => tokio::time::sleep(wait).await,
                        (None, Lost::Answered(response)) => {
                            return Err(self.unexpected(&scope, "an upload", response).await);
                        }
                        (None, Lost::Unanswered(error)) => return Err(self.unreachable(error)),
                    }
                }
            }
        }
    }

    /// Where to upload a blob. `None` says that the registry has mounted it from another repository.
    async fn start_upload(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        from: Option<&str>,
    ) -> Result<Option<Url>, RegistryError> {
        let url = self.url(&scope.repository, "blobs/uploads/");
        if let Some(from) = from {
            let mounting = Scope {
                from: Some(from.to_owned()),
                ..scope.clone()
            };
            let mut mount = url.clone();
            mount
                .query_pairs_mut()
                .append_pair("mount", &blob.digest.to_string())
                .append_pair("from", from);
            // Mounting only saves time: whoever may not, or cannot, uploads.
            match self.post(&mounting, &mount).await {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(None),
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    return self.location(&url, &response).map(Some);
                }
                Ok(_) | Err(RegistryError::Denied { .. } | RegistryError::Unexpected { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let response = self.post(scope, &url).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.location(&url, &response).map(Some),
            _ => Err(self
                .unexpected(scope, "the start of an upload", response)
                .await),
        }
    }

    async fn post(&self, scope: &Scope, url: &Url) -> Result<Response, RegistryError> {
        self.send(scope, |client| {
            client.post(url.clone()).header(CONTENT_LENGTH, 0)
        })
        .await
    }

    fn location(&self, url: &Url, response: &Response) -> Result<Url, RegistryError> {
        let location = response.headers().get(LOCATION);
        location
            .and_then(|location| location.to_str().ok())
            .and_then(|location| url.join(location).ok())
            .ok_or_else(|| self.protocol("it gives no place to upload to"))
    }

    async fn upload(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        store: &BlobStore,
        mut location: Url,
        meter: &Meter<'_>,
    ) -> Result<Attempt, RegistryError> {
        // Told here, where it can be told from a failing connection.
        if store.contains(&blob.digest)? != Some(blob.size) {
            let message = format!("blob is missing from the local store: `{}`", blob.digest);
            return Err(io::Error::new(io::ErrorKind::NotFound, message).into());
        }
        location
            .query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        // Secrets are for the registry, not for whom it names.
        let grant = if location.origin() == self.inner.base.origin() {
            self.granted(scope).await
        } else {
            None
        };
        let (sender, mut sent) = mpsc::unbounded_channel();
        let request = self
            .inner
            .http
            .inner()
            .put(location)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.size)
            .body(reqwest::Body::wrap_stream(body(
                store.path(&blob.digest),
                sender,
            )));
        let answer = Grant::attach(grant.as_ref(), request).send();
        tokio::pin!(answer);
        let mut done = 0;
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                Some(bytes) = sent.recv() => {
                    done += bytes;
                    meter.reach(done);
                }
            }
        };
        match answer {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Attempt::Done),
            Ok(response) if is_lost(response.status()) => {
                Ok(Attempt::Lost(Box::new(Lost::Answered(response))))
            }
            Ok(response) => Err(self.unexpected(scope, "an upload", response).await),
            Err(source) => {
                let url = self.inner.base.to_string();
                let source = source.without_url();
                let error = HttpError::Transport { url, source };
                Ok(Attempt::Lost(Box::new(Lost::Unanswered(error))))
            }
        }
    }
}

/// Whether a new upload may succeed: the token may have expired (401), the session be gone (404, 416), or the
/// server be busy.
fn is_lost(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::NOT_FOUND
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::RANGE_NOT_SATISFIABLE
                | StatusCode::TOO_MANY_REQUESTS
        )
}

fn body(
    path: PathBuf,
    sent: mpsc::UnboundedSender<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    tokio::fs::File::open(path)
        .map_ok(|file| ReaderStream::with_capacity(file, BUFFER))
        .try_flatten_stream()
        .inspect_ok(move |bytes| {
            // Nobody listens any more when the upload was given up.
            let _ = sent.send(bytes.len() as u64);
        })
        .boxed()
}

/// The length an answer to HEAD announces, which is not that of its body.
fn length(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Turns how far one blob is into further bytes, also when it has to start again.
struct Meter<'a> {
    reached: std::sync::atomic::AtomicU64,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl<'a> Meter<'a> {
    fn new(progress: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self {
            reached: 0.into(),
            progress,
        }
    }

    fn reach(&self, done: u64) {
        let before = self
            .reached
            .fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        if done > before {
            (self.progress)(done - before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn bytes_that_are_sent_again_count_once() {
        let total = AtomicU64::new(0);
        let progress = |bytes| {
            total.fetch_add(bytes, Ordering::Relaxed);
        };
        let meter = Meter::new(&progress);
        for done in [3, 7, 2, 7, 10] {
            meter.reach(done);
        }
        assert_eq!(total.load(Ordering::Relaxed), 10);
    }
}
