//! Blobs to a registry: found there, mounted, or sent.

use std::fmt;
use std::sync::atomic::Ordering;

use imagespec_http::{HttpError, Tries};
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Response, StatusCode};
use url::Url;

use super::auth::Scope;
use super::manifests::announced;
use super::meter::Meter;
use super::mounts::Mounts;
use super::push::BlobSource;
use super::session::{Session, Step};
use super::{Registry, RegistryError};
use crate::image::Descriptor;
use crate::store::BlobStore;

/// How many bytes a try has to bring the registry so that it does not count as failed.
const NEARER: u64 = 1 << 20;

/// How to push a blob.
#[derive(Clone, Copy)]
pub struct BlobPush<'a> {
    /// Where it is, or appears when the source has made it.
    pub store: &'a BlobStore,
    /// Who makes it where neither the store nor the registry has it.
    pub source: &'a dyn BlobSource,
    /// Where it goes.
    pub repository: &'a str,
    /// Whether the repository was just asked for it, and does not have it.
    pub absent: bool,
    /// Which other repository may have it; told what comes of it.
    pub mounts: &'a Mounts,
    /// Told of further bytes that the registry has, whichever way.
    pub progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl fmt::Debug for BlobPush<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobPush")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// What came of an attempt to mount a blob.
enum Mount {
    Done,
    /// The registry would rather have it uploaded, there.
    Upload(Session),
    Refused,
}

/// Why a try to upload failed: what the registry answered, or that it did not.
pub(super) enum Setback {
    Answered(Response),
    Unanswered(HttpError),
}

impl Setback {
    fn headers(&self) -> Option<&HeaderMap> {
        match self {
            Self::Answered(response) => Some(response.headers()),
            Self::Unanswered(_) => None,
        }
    }
}

impl Registry {
    /// Sees to it that the repository has a blob: it may be there, or be mounted from another repository, else
    /// it is sent from the store, after the source has made it where it has to. Returns how many bytes were
    /// sent, 0 or all.
    pub async fn push_blob(
        &self,
        blob: &Descriptor,
        push: BlobPush<'_>,
    ) -> Result<u64, RegistryError> {
        let scope = Scope::push(push.repository);
        let meter = Meter::new(push.progress);
        let found = !push.absent && self.head_blob_as(&scope, &blob.digest).await?.is_some();
        let sent = if found {
            0
        } else {
            self.bring(&scope, blob, push, &meter).await?
        };
        meter.reach(blob.size);
        if !blob.media_type.ends_with("+json") {
            let mounts = push.mounts;
            mounts.holds(&self.inner.name, push.repository, &blob.digest);
        }
        Ok(sent)
    }

    async fn bring(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        push: BlobPush<'_>,
        meter: &Meter<'_>,
    ) -> Result<u64, RegistryError> {
        let mut session = None;
        let registry = &self.inner.name;
        if let Some(from) = push.mounts.find(registry, push.repository, &blob.digest) {
            match self.mount(scope, blob, &from).await? {
                Mount::Done => {
                    self.inner.mounted.fetch_add(1, Ordering::Relaxed);
                    return Ok(0);
                }
                Mount::Upload(started) => session = Some(started),
                Mount::Refused => {}
            }
            push.mounts.lacks(registry, &from, &blob.digest);
        }
        if push.store.contains(&blob.digest)? != Some(blob.size) {
            let made = push.source.provide(blob).await;
            made.map_err(RegistryError::Source)?;
        }
        self.upload(scope, blob, push.store, session, meter).await?;
        Ok(blob.size)
    }

    async fn upload(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        store: &BlobStore,
        mut session: Option<Session>,
        meter: &Meter<'_>,
    ) -> Result<(), RegistryError> {
        let mut tries = self.inner.tuning.retry.tries();
        let mut best = 0;
        let mut again = false;
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                // What was lost may have been no more than the answer.
                None if again && self.head_blob_as(scope, &blob.digest).await?.is_some() => {
                    return Ok(());
                }
                None => self.start_upload(scope).await?,
            };
            again = true;
            let step = self.go_on(scope, blob, store, &mut current, meter).await?;
            if current.offset >= best + NEARER {
                best = current.offset;
                tries.advanced();
            }
            session = match step {
                Step::Done => return Ok(()),
                Step::Again(setback) => {
                    self.wait(scope, &mut tries, setback).await?;
                    self.resume(scope, blob, current).await
                }
                Step::Lost(setback) => {
                    self.wait(scope, &mut tries, setback).await?;
                    None
                }
            };
        }
    }

    /// Waits before another try, if there is one.
    async fn wait(
        &self,
        scope: &Scope,
        tries: &mut Tries,
        setback: Setback,
    ) -> Result<(), RegistryError> {
        if tries.again(setback.headers()).await {
            return Ok(());
        }
        Err(match setback {
            Setback::Answered(response) => self.unexpected(scope, "an upload", response).await,
            Setback::Unanswered(error) => self.unreachable(error),
        })
    }

    /// Asks the registry to take a blob from another of its repositories. Mounting only saves time: whoever
    /// may not, or cannot, uploads.
    async fn mount(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        from: &str,
    ) -> Result<Mount, RegistryError> {
        let mounting = Scope {
            from: Some(from.to_owned()),
            ..scope.clone()
        };
        let mut url = self.uploads(scope);
        url.query_pairs_mut()
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", from);
        match self.post(&mounting, &url).await {
            Ok(response) => match response.status() {
                StatusCode::CREATED
                    if announced(&response).is_none_or(|found| found == blob.digest) =>
                {
                    Ok(Mount::Done)
                }
                StatusCode::ACCEPTED => self.started(&response).map(Mount::Upload),
                _ => Ok(Mount::Refused),
            },
            Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Credentials(_))) => {
                Err(error)
            }
            Err(_) => Ok(Mount::Refused),
        }
    }

    async fn start_upload(&self, scope: &Scope) -> Result<Session, RegistryError> {
        let response = self.post(scope, &self.uploads(scope)).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.started(&response),
            _ => Err(self
                .unexpected(scope, "the start of an upload", response)
                .await),
        }
    }

    fn started(&self, response: &Response) -> Result<Session, RegistryError> {
        Session::started(response, &self.inner.base)
            .ok_or_else(|| self.protocol("it gives no place to upload to"))
    }

    fn uploads(&self, scope: &Scope) -> Url {
        self.url(&scope.repository, "blobs/uploads/")
    }

    async fn post(&self, scope: &Scope, url: &Url) -> Result<Response, RegistryError> {
        self.send(scope, |client| {
            client.post(url.clone()).header(CONTENT_LENGTH, 0)
        })
        .await
    }
}
