//! The client of one registry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use imagespec_core::host::{Host, RegistrySettings};
use imagespec_http::Client;
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::RegistryError;
use super::auth::{Grant, Scope};
use crate::credentials::Credentials;
use crate::reference::DEFAULT_REGISTRY;

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
}

impl Registry {
    /// The registry called `name`, a host with an optional port, with the settings `host` has for it.
    /// Contacts nothing.
    ///
    /// Plain HTTP is spoken only with registries of this very machine and those the settings call insecure.
    pub fn new(host: &Host, name: &str) -> Result<Self, RegistryError> {
        let settings = host.registries.get(name).cloned().unwrap_or_default();
        let http =
            Client::with_settings(&settings).map_err(|source| RegistryError::Unreachable {
                registry: name.to_owned(),
                source,
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                base: base(name, &settings)?,
                http,
                credentials: Credentials::new(host),
                grants: Mutex::default(),
            }),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// `/v2/REPOSITORY/PATH`. Repository and path hold nothing that a URL gives a meaning to.
    pub(super) fn url(&self, repository: &str, path: &str) -> Url {
        let mut url = self.inner.base.clone();
        url.set_path(&format!("/v2/{repository}/{path}"));
        url
    }

    /// Sends what `request` makes, with what authorises `scope`, which is asked for where the registry wants
    /// it. The answer may have any status.
    pub(super) async fn send(
        &self,
        scope: &Scope,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let grant = self.granted(scope).await;
        let response = self.send_with(grant.as_ref(), &request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        match self.authorize(scope, grant, response.headers()).await? {
            Some(grant) => self.send_with(Some(&grant), &request).await,
            None => Ok(response),
        }
    }

    async fn send_with(
        &self,
        grant: Option<&Grant>,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        self.inner
            .http
            .send(|client| Grant::attach(grant, request(client)))
            .await
            .map_err(|source| self.unreachable(source))
    }

    pub(super) fn unreachable(&self, source: imagespec_http::HttpError) -> RegistryError {
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

    pub(super) async fn unexpected(
        &self,
        scope: &Scope,
        request: &'static str,
        response: Response,
    ) -> RegistryError {
        RegistryError::unexpected(&self.inner.name, &scope.repository, request, response).await
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
            ca: None,
        };
        let signed = RegistrySettings {
            insecure: false,
            ca: Some("ca.pem".into()),
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
