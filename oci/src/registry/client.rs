//! The client of one registry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use imagespec_core::host::{Host, RegistrySettings};
use imagespec_http::{Client, HttpError, Retry};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::RegistryError;
use super::auth::{Grant, Scope};
use crate::credentials::Credentials;
use crate::reference::DEFAULT_REGISTRY;

/// The largest body of an answer that was not expected, in bytes.
const BODY_LIMIT: u64 = 64 << 10;

/// A registry. Cloning it shares its connections and its tokens.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) base: Url,
    pub(super) http: Client,
    pub(super) credentials: Credentials,
    pub(super) grants: Mutex<HashMap<Scope, Grant>>,
    pub(super) tuning: Tuning,
    /// Whether it takes blobs by chunks, as far as is known.
    pub(super) chunks: AtomicBool,
    /// Requests that were sent to it, and blobs that it mounted.
    pub(super) requests: AtomicU64,
    pub(super) mounted: AtomicU64,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// How often and how patiently.
    pub retry: Retry,
    /// Bytes of a chunk. Blobs of more than two are sent by chunks, so that a broken connection costs one.
    pub chunk: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            chunk: 32 << 20,
        }
    }
}

impl Registry {
    /// The registry called `name`, a host with an optional port, with the settings `host` has for it.
    /// Contacts nothing.
    ///
    /// Plain HTTP is spoken only with registries of this very machine and those the settings call insecure.
    pub fn new(host: &Host, name: &str) -> Result<Self, RegistryError> {
        Self::with_tuning(host, name, Tuning::default())
    }

    /// As [`Registry::new`], with another patience.
    pub fn with_tuning(host: &Host, name: &str, tuning: Tuning) -> Result<Self, RegistryError> {
        let settings = host.registries.get(name).cloned().unwrap_or_default();
        let http = Client::with_settings(&settings).map_err(|source| RegistryError::Setup {
            registry: name.to_owned(),
            source,
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                base: base(name, &settings)?,
                http: http.with_retry(tuning.retry),
                credentials: Credentials::new(host),
                grants: Mutex::default(),
                tuning,
                chunks: true.into(),
                requests: AtomicU64::default(),
                mounted: AtomicU64::default(),
            }),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it is spoken to without TLS.
    pub fn is_plain(&self) -> bool {
        self.inner.base.scheme() == "http"
    }

    /// How many requests were sent to it, those for tokens aside.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// How many blobs it took from another of its repositories.
    pub fn mounted(&self) -> u64 {
        self.inner.mounted.load(Ordering::Relaxed)
    }

    /// `/v2/REPOSITORY/PATH`. Repository and path hold nothing that a URL gives a meaning to.
    pub(super) fn url(&self, repository: &str, path: &str) -> Url {
        let mut url = self.inner.base.clone();
        url.set_path(&format!("/v2/{repository}/{path}"));
        url
    }

    /// Asks the registry whether it is one, with the credentials for a repository: the distribution specification's
    /// `/v2/`.
    pub async fn ping(&self, repository: &str) -> Result<(), RegistryError> {
        let scope = Scope::pull(repository);
        let mut url = self.inner.base.clone();
        url.set_path("/v2/");
        let response = self
            .send_once(&scope, |client| client.head(url.clone()))
            .await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.unexpected(&scope, "a look at `/v2/`", response).await)
    }

    /// Sends what `request` makes, with what authorises `scope`, which is asked for where the registry wants
    /// it, and again where that may help. The answer may have any status.
    pub(super) async fn send(
        &self,
        scope: &Scope,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        self.send_as(scope, true, request).await
    }

    /// As [`Registry::send`], but once.
    pub(super) async fn send_once(
        &self,
        scope: &Scope,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        self.send_as(scope, false, request).await
    }

    async fn send_as(
        &self,
        scope: &Scope,
        retry: bool,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let grant = self.granted(scope).await;
        let response = self.send_with(grant.as_ref(), retry, &request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        match self.authorize(scope, grant, response.headers()).await? {
            Some(grant) => self.send_with(Some(&grant), retry, &request).await,
            None => Ok(response),
        }
    }

    async fn send_with(
        &self,
        grant: Option<&Grant>,
        retry: bool,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let http = &self.inner.http;
        let request = |client: &reqwest::Client| {
            self.inner.requests.fetch_add(1, Ordering::Relaxed);
            Grant::attach(grant, request(client))
        };
        let answer = if retry {
            http.send(request).await
        } else {
            http.send_once(request).await
        };
        answer.map_err(|source| self.unreachable(source))
    }

    /// The status of an answer that was not expected, and its body as far as it can be had.
    pub(super) async fn read(&self, response: Response) -> (StatusCode, Bytes) {
        let status = response.status();
        let body = self.inner.http.read(response, BODY_LIMIT).await;
        (status, body.unwrap_or_default())
    }

    pub(super) fn unreachable(&self, source: HttpError) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.inner.name.clone(),
            source,
        }
    }

    pub(super) fn protocol(&self, problem: &'static str) -> RegistryError {
        RegistryError::Protocol {
            registry: self.inner.name.clone(),
            problem,
        }
    }

    /// The error of an answer that was not expected.
    pub(super) async fn unexpected(
        &self,
        scope: &Scope,
        request: &'static str,
        response: Response,
    ) -> RegistryError {
        let (status, body) = self.read(response).await;
        self.refusal(scope, request, status, &body)
    }

    pub(super) fn refusal(
        &self,
        scope: &Scope,
        request: &'static str,
        status: StatusCode,
        body: &[u8],
    ) -> RegistryError {
        RegistryError::refusal(&self.inner.name, &scope.repository, request, status, body)
    }
}

fn base(name: &str, settings: &RegistrySettings) -> Result<Url, RegistryError> {
    let wrong = || RegistryError::Name(name.to_owned());
    let host = match name {
        DEFAULT_REGISTRY => "registry-1.docker.io",
        name => name,
    };
    let url: Url = format!("https://{host}").parse().map_err(|_| wrong())?;
    if url.path() != "/" || !url.username().is_empty() || url.query().is_some() {
        return Err(wrong());
    }
    let plain = settings.insecure || (settings.ca.is_none() && is_loopback(&url));
    if !plain {
        return Ok(url);
    }
    // Not `set_scheme`: that would lose a port which is the default of the other scheme.
    format!("http://{host}").parse().map_err(|_| wrong())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(domain)) => domain == "localhost",
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_by_permission() {
        let secure = RegistrySettings::default();
        let insecure = RegistrySettings {
            insecure: true,
            ..RegistrySettings::default()
        };
        let signed = RegistrySettings {
            ca: Some("ca.pem".into()),
            ..RegistrySettings::default()
        };
        for (name, settings, expected) in [
            ("docker.io", &secure, "https://registry-1.docker.io/"),
            ("r.example:443", &secure, "https://r.example/"),
            ("r.example:5000", &secure, "https://r.example:5000/"),
            ("r.example:80", &insecure, "http://r.example/"),
            ("r.example:443", &insecure, "http://r.example:443/"),
            ("localhost:5000", &secure, "http://localhost:5000/"),
            ("127.0.0.1:5000", &secure, "http://127.0.0.1:5000/"),
            ("[::1]:5000", &secure, "http://[::1]:5000/"),
            ("localhost:5000", &signed, "https://localhost:5000/"),
            ("localhost.example", &secure, "https://localhost.example/"),
        ] {
            assert_eq!(base(name, settings).expect("a URL").as_str(), expected);
        }
        for wrong in ["", "a/b", "user@host", "host?x"] {
            assert!(base(wrong, &secure).is_err(), "{wrong}");
        }
    }
}
