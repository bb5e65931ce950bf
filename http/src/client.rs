//! The client: TLS over the system's trust store, proxies, retries.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use imagespec_core::host::{Host, RegistrySettings};
use reqwest::{RequestBuilder, Response};
use url::Url;

use crate::body::bounded;
use crate::error::{HttpError, redacted};
use crate::retry::{Retry, worth_retrying};
use crate::trust::{Identity, Trust};

/// An HTTP client. Cloning it shares its connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    uploads: Arc<OnceLock<reqwest::Client>>,
    trust: Trust,
    retry: Retry,
}

impl Client {
    /// A client that trusts what the system trusts and uses the proxies the environment names.
    pub fn new(_host: &Host) -> Result<Self, HttpError> {
        Self::with_settings(&RegistrySettings::default())
    }

    /// A client for one registry, which may be signed by an authority of its own.
    pub fn with_settings(settings: &RegistrySettings) -> Result<Self, HttpError> {
        let read = |file: &PathBuf| fs_err::read(file).map_err(HttpError::setup);
        let pem = settings.ca.as_ref().map(read).transpose()?;
        let identity = match (&settings.cert, &settings.key) {
            (Some(cert), Some(key)) => Some(Identity::new(&read(cert)?, &read(key)?)?),
            (None, None) => None,
            _ => {
                return Err(HttpError::setup(io::Error::other(
                    "`cert` and `key` belong together",
                )));
            }
        };
        let trust = Trust::new(pem.as_deref(), identity)?;
        let inner = builder(&trust)?
            .read_timeout(Duration::from_mins(1))
            .build()
            .map_err(HttpError::setup)?;
        Ok(Self {
            inner,
            uploads: Arc::default(),
            trust,
            retry: Retry::default(),
        })
    }

    /// A client for a service of this machine, over its socket where it has one: no proxy stands before it.
    pub fn local(socket: Option<&Path>) -> Result<Self, HttpError> {
        let trust = Trust::new(None, None)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.config()?)
            .connect_timeout(Duration::from_secs(10))
            .no_proxy();
        #[cfg(unix)]
        if let Some(socket) = socket {
            builder = builder.unix_socket(socket);
        }
        let inner = builder.build().map_err(HttpError::setup)?;
        Ok(Self {
            inner,
            retry: Retry::default(),
            trust,
            uploads: Arc::default(),
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

    /// The client below for requests whose body is large or secret: it follows no redirect, and waits for an
    /// answer without end, so that whoever uses it has to watch the time.
    pub fn uploads(&self) -> Result<&reqwest::Client, HttpError> {
        if let Some(client) = self.uploads.get() {
            return Ok(client);
        }
        let client = builder(&self.trust)?
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(HttpError::setup)?;
        Ok(self.uploads.get_or_init(|| client))
    }

    /// How patient it is.
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// Sends what `request` makes, again on 408, 429, 5xx and broken connections, and returns the last answer
    /// whatever its status. A request with a streamed body must be made anew by every call of `request`.
    pub async fn send(
        &self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        let mut tries = self.retry.tries();
        loop {
            let answer = self.send_once(&request).await;
            let headers = match &answer {
                Ok(response) if worth_retrying(response) => Some(response.headers()),
                Err(error) if error.may_pass() => None,
                _ => return answer,
            };
            if !tries.again(headers).await {
                return answer;
            }
        }
    }

    /// Sends what `request` makes, once, and returns the answer whatever its status.
    pub async fn send_once(
        &self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        let (client, request) = request(&self.inner).build_split();
        let request = request.map_err(HttpError::of)?;
        let url = request.url().clone();
        match tokio::time::timeout(self.retry.patience, client.execute(request)).await {
            Ok(answer) => answer.map_err(HttpError::of),
            Err(_) => Err(HttpError::too_slow(&url, self.retry.patience)),
        }
    }

    /// The body of an answer, at most `limit` bytes.
    pub async fn read(&self, response: Response, limit: u64) -> Result<Bytes, HttpError> {
        bounded(response, limit, self.retry.patience).await
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
        let body = self.read(response, 4096).await.unwrap_or_default();
        Err(HttpError::Status {
            url,
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// The whole of a small answer, at most `limit` bytes.
    pub async fn fetch(&self, url: &Url, limit: u64) -> Result<Bytes, HttpError> {
        let mut tries = self.retry.tries();
        loop {
            let response = self.send_ok(|client| client.get(url.clone())).await?;
            match self.read(response, limit).await {
                Err(error) if error.may_pass() => {
                    if !tries.again(None).await {
                        return Err(error);
                    }
                }
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

fn builder(trust: &Trust) -> Result<reqwest::ClientBuilder, HttpError> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(trust.config()?)
        .user_agent(concat!("imagespec/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20)))
}
