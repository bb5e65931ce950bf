//! Blobs of a registry.

use imagespec_core::digest::Digest;
use imagespec_http::{Download, Expected, HttpError};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Response, StatusCode};

use super::auth::{Grant, Scope};
use super::manifests::announced;
use super::meter::Meter;
use super::{Registry, RegistryError};
use crate::image::Descriptor;
use crate::store::BlobStore;

impl Registry {
    /// The length of a blob in bytes, if the repository has it.
    pub async fn head_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<Option<u64>, RegistryError> {
        self.head_blob_as(&Scope::pull(repository), digest).await
    }

    pub(super) async fn head_blob_as(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let url = self.url(&scope.repository, &format!("blobs/{digest}"));
        let response = self.send(scope, |client| client.head(url.clone())).await?;
        match response.status() {
            // Another's digest is another blob.
            StatusCode::OK if announced(&response).is_some_and(|found| found != *digest) => {
                Ok(None)
            }
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
        let expected = Expected {
            digest: Some(blob.digest),
            size: Some(blob.size),
            limit: blob.size,
        };
        let url = self.url(repository, &format!("blobs/{}", blob.digest));
        let meter = Meter::new(progress);
        let mut download = Download::new(&store.folder(), expected)?;
        let mut refused_at = None;
        loop {
            let grant = self.granted(&scope).await;
            let request =
                |client: &reqwest::Client| Grant::attach(grant.as_ref(), client.get(url.clone()));
            let so_far = |done| meter.reach(done);
            match download.run(&self.inner.http, request, &url, &so_far).await {
                Ok(()) => break,
                Err(HttpError::Status {
                    status: StatusCode::UNAUTHORIZED,
                    ..
                }) if refused_at != Some(download.size()) => {
                    // The token has expired, or there was none yet: this asks for one.
                    refused_at = Some(download.size());
                    if self.head_blob_as(&scope, &blob.digest).await?.is_none() {
                        return Err(RegistryError::NotFound(blob.digest.to_string()));
                    }
                }
                Err(error) => return Err(self.of_download(&scope, blob, error)),
            }
        }
        let done = download.finish()?;
        Ok(store.adopt(done.file, &blob.digest)?)
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
            HttpError::Status { status, body, .. } => {
                self.refusal(scope, "a request for a blob", status, body.as_bytes())
            }
            error => self.unreachable(error),
        }
    }
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
