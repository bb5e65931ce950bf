//! The client: TLS over the system's trust store, proxies, retries.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use imagespec_core::host::{Host, RegistrySettings};
use reqwest::{RequestBuilder, Response};
use rustls::crypto::ring;
use url::Url;

use crate::error::{HttpError, redacted};
use crate::retry::{Retry, worth_retrying};

/// An HTTP client. Cloning it shares its connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    retry: Retry,
}

impl Client {
    /// A client that trusts what the system trusts and uses the proxies the environment names.
    pub fn new(_host: &Host) -> Result<Self, HttpError> {
        Self::with_settings(&RegistrySettings::default())
    }

    /// A client for one registry, which may be signed by an authority of its own.
    pub fn with_settings(settings: &RegistrySettings) -> Result<Self, HttpError> {
        // The provider is the process's; whoever comes first sets it, and it is the same for all.
        let _ = ring::default_provider().install_default();
        let setup = |source: Box<dyn std::error::Error + Send + Sync>| HttpError::Setup { source };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("imagespec/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_secs(60));
        if let Some(ca) = &settings.ca {
            let pem = fs_err::read(ca).map_err(|error| setup(error.into()))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| setup(error.into()))?;
            builder = builder.tls_certs_merge(authorities);
        }
        let inner = builder.build().map_err(|error| setup(error.into()))?;
        Ok(Self {
            inner,
            retry: Retry::default(),
        })
    }

    /// The same client with another patience.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The client below, to make requests with; [`Client::send`] sends them.
    pub const fn inner(&self) -> &reqwest::Client {
        &self.inner
    }

    pub(crate) const fn retry(&self) -> &Retry {
        &self.retry
    }

    /// Sends what `request` makes, again on 408, 429, 5xx and broken connections, and returns the last answer
    /// whatever its status. A request with a streamed body must be made anew by every call of `request`.
    pub async fn send(
        &self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let wait = match request(&self.inner).send().await {
                Ok(response) if worth_retrying(&response) => {
                    match self.retry.wait(tried, Some(response.headers())) {
                        Some(wait) => wait,
                        None => return Ok(response),
                    }
                }
                Ok(response) => return Ok(response),
                Err(error) => match self.retry.wait(tried, None) {
                    Some(wait) if !error.is_builder() => wait,
                    _ => return Err(transport(error)),
                },
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// As [`Client::send`], but any answer that is not a success is an error.
    pub async fn send_ok(
        &self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (url, status) = (redacted(response.url()), response.status());
        let body = bounded(response, 4096).await.unwrap_or_default();
        Err(HttpError::Status {
            url,
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// The whole of a small answer, at most `limit` bytes.
    pub async fn fetch(&self, url: &Url, limit: u64) -> Result<Bytes, HttpError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let response = self.send_ok(|client| client.get(url.clone())).await?;
            match bounded(response, limit).await {
                Err(HttpError::Transport { .. }) if self.retry.wait(tried, None).is_some() => {}
                result => return result,
            }
        }
    }
}

impl Client {
    /// Shares one client between rooms.
    pub fn shared(host: &Host) -> Result<Arc<Self>, HttpError> {
        Self::new(host).map(Arc::new)
    }
}

/// The body of an answer, at most `limit` bytes.
pub(crate) async fn bounded(response: Response, limit: u64) -> Result<Bytes, HttpError> {
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
    let mut body = BytesMut::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.map_err(|error| HttpError::transport(&url, error))?);
        if body.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(body.freeze())
}

fn transport(error: reqwest::Error) -> HttpError {
    let url = error.url().map(redacted).unwrap_or_default();
    HttpError::Transport {
        url,
        source: error.without_url(),
    }
}
