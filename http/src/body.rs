//! Bodies of answers: bounded in size, and in the time they may take.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::error::{HttpError, redacted};

/// What has to come within the patience, so that a server which drips is one that has stopped.
const PACE: u64 = 64 << 10;

/// The body of an answer, piece by piece.
pub(crate) struct Body {
    stream: BoxStream<'static, reqwest::Result<Bytes>>,
    url: Url,
    patience: Duration,
    deadline: Instant,
    since: u64,
}

impl Body {
    pub(crate) fn new(response: Response, patience: Duration) -> Self {
        let url = response.url().clone();
        Self {
            stream: response.bytes_stream().boxed(),
            url,
            patience,
            deadline: Instant::now() + patience,
            since: 0,
        }
    }

    /// The next piece, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let next = timeout_at(self.deadline, self.stream.next());
        let Ok(chunk) = next.await else {
            return Err(HttpError::too_slow(&self.url, self.patience));
        };
        let chunk = chunk
            .transpose()
            .map_err(|error| HttpError::transport(&self.url, error))?;
        self.since += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.since >= PACE {
            self.since = 0;
            self.deadline = Instant::now() + self.patience;
        }
        Ok(chunk)
    }
}

/// The body of an answer, at most `limit` bytes.
pub(crate) async fn bounded(
    response: Response,
    limit: u64,
    patience: Duration,
) -> Result<Bytes, HttpError> {
    let url = response.url().clone();
    let too_large = || HttpError::TooLarge {
        url: redacted(&url),
        limit,
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    let mut body = Body::new(response, patience);
    while let Some(chunk) = body.next().await? {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(all.freeze())
}
