//! Uploads as the distribution specification has them: a session, to which a blob is sent as a whole or by
//! chunks, and which says after a broken connection how far it has come ("Pushing a blob in chunks").

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use imagespec_core::digest::Digest;
use imagespec_http::{HttpError, worth_retrying};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use url::Url;

use super::auth::{Grant, Scope};
use super::manifests::announced;
use super::meter::Meter;
use super::upload::Setback;
use super::{Registry, RegistryError};
use crate::image::Descriptor;
use crate::store::BlobStore;

const BUFFER: usize = 256 * 1024;
/// How often an upload may be sent elsewhere.
const REDIRECTS: usize = 5;
/// The least bytes of a chunk that a registry wants, by the specification.
const LEAST: &str = "oci-chunk-min-length";

/// An upload under way.
#[derive(Debug)]
pub(super) struct Session {
    /// Where it goes on.
    place: Url,
    /// How many bytes the registry has.
    pub(super) offset: u64,
    /// The least bytes of a chunk.
    least: u64,
    /// Whether the offset is what the registry said after a broken connection.
    resumed: bool,
}

/// How one try to upload a blob ended.
pub(super) enum Step {
    Done,
    /// The session may go on.
    Again(Setback),
    /// The session is lost; another may succeed.
    Lost(Setback),
}

/// A part of a blob on its way.
struct Part {
    method: Method,
    place: Url,
    path: PathBuf,
    range: Range<u64>,
}

impl Session {
    /// The session that an answer speaks of, whose place may be relative.
    pub(super) fn started(response: &Response, base: &Url) -> Option<Self> {
        let least = response.headers().get(LEAST);
        Some(Self {
            place: place(response, base)?,
            offset: 0,
            least: least
                .and_then(|least| least.to_str().ok()?.parse().ok())
                .unwrap_or(0),
            resumed: false,
        })
    }
}

impl Registry {
    /// Sends what the session lacks: by chunks where it is large, else at once.
    pub(super) async fn go_on(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        store: &BlobStore,
        session: &mut Session,
        meter: &Meter<'_>,
    ) -> Result<Step, RegistryError> {
        // Told here, where it can be told from a failing connection.
        if store.contains(&blob.digest)? != Some(blob.size) {
            let message = format!("a blob is missing from the local store: `{}`", blob.digest);
            return Err(io::Error::new(io::ErrorKind::NotFound, message).into());
        }
        let chunk = self.inner.tuning.chunk.max(session.least).max(1);
        let chunked = self.inner.chunks.load(Ordering::Relaxed) && blob.size / 2 > chunk;
        let mut part = Part {
            method: Method::PATCH,
            place: session.place.clone(),
            path: store.path(&blob.digest),
            range: 0..0,
        };
        while (chunked || session.offset > 0) && session.offset < blob.size {
            let end = blob.size.min(session.offset.saturating_add(chunk));
            part.place = session.place.clone();
            part.range = session.offset..end;
            let response = match self.send_part(scope, &mut part, meter).await? {
                Ok(response) => response,
                Err(error) => return Ok(Step::Again(Setback::Unanswered(error))),
            };
            if response.status() != StatusCode::ACCEPTED {
                return self.of_chunk(scope, response).await;
            }
            session.place = place(&response, &self.inner.base).unwrap_or(part.place.clone());
            match reached(&response).unwrap_or(end) {
                offset if offset == end => session.offset = end,
                // It has said before how far it is, and that was wrong.
                _ if session.resumed => return Ok(Step::Lost(Setback::Answered(response))),
                // Some of it is not there: the registry says what.
                _ => return Ok(Step::Again(Setback::Answered(response))),
            }
        }
        part.method = Method::PUT;
        part.range = session.offset..blob.size;
        part.place = session.place.clone();
        part.place
            .query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        match self.send_part(scope, &mut part, meter).await? {
            Ok(response) => self.of_end(scope, blob, store, session, response).await,
            Err(error) => Ok(Step::Again(Setback::Unanswered(error))),
        }
    }

    /// What follows from an answer to a chunk that is not the expected one.
    async fn of_chunk(&self, scope: &Scope, response: Response) -> Result<Step, RegistryError> {
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Step::Again(Setback::Answered(response))),
            _ if worth_retrying(&response) => Ok(Step::Again(Setback::Answered(response))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(self.unexpected(scope, "an upload", response).await)
            }
            // The session is gone, or this registry takes no chunks.
            status => {
                if status != StatusCode::NOT_FOUND {
                    self.inner.chunks.store(false, Ordering::Relaxed);
                }
                Ok(Step::Lost(Setback::Answered(response)))
            }
        }
    }

    /// What follows from the answer to the last request.
    async fn of_end(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        store: &BlobStore,
        session: &Session,
        response: Response,
    ) -> Result<Step, RegistryError> {
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
                match announced(&response) {
                    Some(found) if found != blob.digest => Err(RegistryError::Mismatch {
                        expected: blob.digest,
                        found,
                    }),
                    _ => Ok(Step::Done),
                }
            }
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(Step::Lost(Setback::Answered(response)))
            }
            _ if worth_retrying(&response) => Ok(Step::Again(Setback::Answered(response))),
            // The pieces do not fit together, or the blob is damaged: then it is of no use to try again.
            StatusCode::BAD_REQUEST => {
                let (found, _) = digest(store, blob).await?;
                if found != blob.digest {
                    return Err(RegistryError::Mismatch {
                        expected: blob.digest,
                        found,
                    });
                }
                if session.resumed {
                    return Ok(Step::Lost(Setback::Answered(response)));
                }
                Err(self.unexpected(scope, "an upload", response).await)
            }
            _ => Err(self.unexpected(scope, "an upload", response).await),
        }
    }

    /// Where a session is after a setback. `None` says that nobody knows, and that a new one is needed.
    pub(super) async fn resume(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        session: Session,
    ) -> Option<Session> {
        // A storage that the registry has sent us to knows no sessions, and must see no token.
        if session.place.origin() != self.inner.base.origin() {
            return None;
        }
        let answer = self
            .send(scope, |client| client.get(session.place.clone()))
            .await;
        let response = answer.ok()?;
        if !response.status().is_success() {
            return None;
        }
        // More than there is of the blob is another's.
        let offset = reached(&response).filter(|offset| *offset <= blob.size)?;
        Some(Session {
            place: place(&response, &self.inner.base).unwrap_or(session.place),
            offset,
            least: session.least,
            resumed: true,
        })
    }

    /// Sends a part of a blob to its place, to where that redirects, and again with a new token where the old
    /// one has expired. The inner error is one of the connection.
    async fn send_part(
        &self,
        scope: &Scope,
        part: &mut Part,
        meter: &Meter<'_>,
    ) -> Result<Result<Response, HttpError>, RegistryError> {
        let mut refreshed = false;
        for _ in 0..REDIRECTS {
            // Secrets are for the registry, not for whom it names.
            let own = part.place.origin() == self.inner.base.origin();
            let grant = if own { self.granted(scope).await } else { None };
            self.inner.requests.fetch_add(1, Ordering::Relaxed);
            let response = match self.send_bytes(part, grant.as_ref(), meter).await {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            match response.status() {
                StatusCode::UNAUTHORIZED if own && !refreshed => {
                    refreshed = true;
                    let headers = response.headers();
                    if self.authorize(scope, grant, headers).await?.is_none() {
                        return Ok(Ok(response));
                    }
                }
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                    part.place = place(&response, &self.inner.base)
                        .ok_or_else(|| self.protocol("it gives no place to upload to"))?;
                }
                _ => return Ok(Ok(response)),
            }
        }
        Err(self.protocol("an upload is sent elsewhere again and again"))
    }

    async fn send_bytes(
        &self,
        part: &Part,
        grant: Option<&Grant>,
        meter: &Meter<'_>,
    ) -> Result<Response, HttpError> {
        let length = part.range.end - part.range.start;
        let (sender, mut sent) = mpsc::unbounded_channel();
        let mut request = self
            .inner
            .http
            .uploads()?
            .request(part.method.clone(), part.place.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length);
        if part.method == Method::PATCH {
            let last = part.range.end - 1;
            request = request.header(CONTENT_RANGE, format!("{}-{last}", part.range.start));
        }
        if length > 0 {
            let body = body(part.path.clone(), part.range.clone(), sender);
            request = request.body(reqwest::Body::wrap_stream(body));
        }
        let answer = Grant::attach(grant, request).send();
        tokio::pin!(answer);
        let patience = self.inner.tuning.retry.patience;
        let mut done = 0;
        let mut since = Instant::now();
        loop {
            // A registry may have to move the whole blob before it answers.
            let wait = if done == length {
                patience * 3
            } else {
                patience
            };
            tokio::select! {
                answer = &mut answer => return answer.map_err(HttpError::of),
                Some(bytes) = sent.recv() => {
                    done += bytes;
                    meter.reach(part.range.start + done);
                    since = Instant::now();
                }
                () = tokio::time::sleep_until(since + wait) => {
                    return Err(HttpError::too_slow(&part.place, wait));
                }
            }
        }
    }
}

async fn digest(store: &BlobStore, blob: &Descriptor) -> io::Result<(Digest, u64)> {
    let mut file = store.open_blob(&blob.digest)?;
    tokio::task::spawn_blocking(move || Digest::of_reader(&mut file)).await?
}

/// Where an answer sends us. A registry with TLS that calls itself without it is behind a proxy and does not
/// know better; elsewhere we go without TLS only from where there is none.
fn place(response: &Response, base: &Url) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut place = response.url().join(location).ok()?;
    if place.scheme() == "http" && base.scheme() == "https" {
        if place.host() != base.host() {
            return None;
        }
        place.set_scheme("https").ok()?;
    }
    matches!(place.scheme(), "http" | "https").then_some(place)
}

/// How many bytes the registry has, by its `Range: 0-LAST`. `0-0` is written for none and for one.
fn reached(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?.trim();
    let (first, last) = range.trim_start_matches("bytes=").split_once('-')?;
    match (first.trim().parse().ok()?, last.trim().parse().ok()?) {
        (0_u64, 0_u64) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

fn body(
    path: PathBuf,
    range: Range<u64>,
    sent: mpsc::UnboundedSender<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let open = async move {
        let mut file = tokio::fs::File::open(path).await?;
        file.seek(io::SeekFrom::Start(range.start)).await?;
        Ok(file.take(range.end - range.start))
    };
    open.map_ok(|part| ReaderStream::with_capacity(part, BUFFER))
        .try_flatten_stream()
        .inspect_ok(move |bytes| {
            // Nobody listens any more when the upload was given up.
            let _ = sent.send(bytes.len() as u64);
        })
        .boxed()
}
