//! Authorisation: basic, or a bearer token from the registry's token server (distribution, "Token
//! Authentication Specification" and its OAuth 2 variant).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use url::Url;

use super::challenge::{Challenge, challenge};
use super::{Registry, RegistryError};
use crate::credentials::{Credential, Secret};

/// How long a token lasts whose server does not say, by the specification.
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// A token this close to its end is not used any more.
const MARGIN: Duration = Duration::from_secs(10);

/// What a request is allowed to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// The repository.
    pub(super) repository: String,
    /// Whether it writes.
    pub(super) push: bool,
    /// A repository that blobs are mounted from.
    pub(super) from: Option<String>,
}

impl Scope {
    /// Reading a repository.
    pub(super) fn pull(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            push: false,
            from: None,
        }
    }

    /// Reading and writing a repository.
    pub(super) fn push(repository: &str) -> Self {
        Self {
            push: true,
            ..Self::pull(repository)
        }
    }

    fn texts(&self) -> Vec<String> {
        let actions = if self.push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.repository);
        let from = self.from.as_ref();
        std::iter::once(own)
            .chain(from.map(|from| format!("repository:{from}:pull")))
            .collect()
    }
}

/// The value of an `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    header: HeaderValue,
    expires: Option<Instant>,
}

impl Grant {
    fn new(scheme: &str, value: &str, life: Option<Duration>) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {value}")).ok()?;
        header.set_sensitive(true);
        Some(Self {
            header,
            expires: life.and_then(|life| Instant::now().checked_add(life)),
        })
    }

    fn basic(username: &str, password: &Secret) -> Option<Self> {
        let pair = format!("{username}:{}", password.expose());
        Self::new("Basic", &BASE64_STANDARD.encode(pair), None)
    }

    fn is_fresh(&self) -> bool {
        self.expires
            .is_none_or(|expires| Instant::now() + MARGIN < expires)
    }

    /// A request with the grant, if there is one.
    pub(super) fn attach(grant: Option<&Self>, request: RequestBuilder) -> RequestBuilder {
        match grant {
            Some(grant) => request.header(AUTHORIZATION, grant.header.clone()),
            None => request,
        }
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default, rename = "token")]
    docker: Option<String>,
    #[serde(default, rename = "access_token")]
    oauth: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Registry {
    /// What was granted before for `scope`, and still lasts.
    pub(super) async fn granted(&self, scope: &Scope) -> Option<Grant> {
        let grants = self.inner.grants.lock().await;
        grants.get(scope).filter(|grant| grant.is_fresh()).cloned()
    }

    /// Asks for a grant after the registry refused `refused`. `None` says that there is no way to get one.
    pub(super) async fn authorize(
        &self,
        scope: &Scope,
        refused: Option<Grant>,
        headers: &HeaderMap,
    ) -> Result<Option<Grant>, RegistryError> {
        // Held all along: of many requests that are refused at once, one asks.
        let mut grants = self.inner.grants.lock().await;
        let newer = grants
            .get(scope)
            .filter(|grant| Some(*grant) != refused.as_ref() && grant.is_fresh());
        if let Some(newer) = newer {
            return Ok(Some(newer.clone()));
        }
        let credential = self
            .inner
            .credentials
            .find(&self.inner.name, &scope.repository)
            .await?;
        let grant = match (challenge(headers), credential) {
            (_, Some(Credential::RegistryToken(token))) => {
                Grant::new("Bearer", token.expose(), None)
            }
            (Some(Challenge::Basic), Some(Credential::Basic { username, password })) => {
                Grant::basic(&username, &password)
            }
            (Some(Challenge::Bearer { realm, service }), credential) => {
                let realm = self.realm(&realm)?;
                Some(
                    self.token(scope, &realm, service.as_deref(), credential)
                        .await?,
                )
            }
            _ => None,
        };
        // The very same grant again would be refused again.
        let grant = grant.filter(|grant| {
            refused
                .as_ref()
                .is_none_or(|refused| refused.header != grant.header)
        });
        match &grant {
            Some(grant) => grants.insert(scope.clone(), grant.clone()),
            None => grants.remove(scope),
        };
        Ok(grant)
    }

    /// The token server, if secrets may be sent there: by TLS, or in plain text only where the registry
    /// itself is spoken to in plain text.
    fn realm(&self, realm: &str) -> Result<Url, RegistryError> {
        let url: Url = self
            .inner
            .base
            .join(realm)
            .map_err(|_| self.protocol("its token server is not a URL"))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.inner.base.scheme() == "http" => Ok(url),
            _ => Err(self.protocol("its token server does not use TLS")),
        }
    }

    async fn token(
        &self,
        scope: &Scope,
        realm: &Url,
        service: Option<&str>,
        credential: Option<Credential>,
    ) -> Result<Grant, RegistryError> {
        let http = &self.inner.http;
        // A body goes along with a redirect, to whichever host; this one is a secret.
        let direct = http.uploads().map_err(|source| self.unreachable(source))?;
        let response = http
            .send(|client| match &credential {
                Some(Credential::IdentityToken(token)) => direct
                    .post(realm.clone())
                    .header("content-type", FORM)
                    .body(form(scope, service, token)),
                Some(Credential::Basic { username, password }) => {
                    let grant = Grant::basic(username, password);
                    Grant::attach(grant.as_ref(), client.get(query(scope, realm, service)))
                }
                _ => client.get(query(scope, realm, service)),
            })
            .await
            .map_err(|source| self.unreachable(source))?;
        self.read_token(scope, response).await
    }

    async fn read_token(&self, scope: &Scope, response: Response) -> Result<Grant, RegistryError> {
        if !response.status().is_success() {
            return Err(self
                .unexpected(scope, "a request for a token", response)
                .await);
        }
        let token: Token = serde_json::from_slice(&self.read(response).await.1)
            .map_err(|_| self.protocol("its token server's answer is not a token"))?;
        let life = token.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        token
            .docker
            .or(token.oauth)
            .and_then(|token| Grant::new("Bearer", &token, Some(life)))
            .ok_or_else(|| self.protocol("its token server's answer has no token"))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn query(scope: &Scope, realm: &Url, service: Option<&str>) -> Url {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scope.texts() {
            query.append_pair("scope", &scope);
        }
    }
    url
}

fn form(scope: &Scope, service: Option<&str>, token: &Secret) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "imagespec")
        .append_pair("refresh_token", token.expose())
        .append_pair("scope", &scope.texts().join(" "));
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    form.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_what_is_read_and_written() {
        let scope = Scope {
            from: Some("base".to_owned()),
            ..Scope::push("a/b")
        };
        let realm = "https://auth.example/token?x=1".parse().expect("a URL");
        assert_eq!(
            query(&scope, &realm, Some("r")).as_str(),
            "https://auth.example/token?x=1&service=r&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Abase%3Apull"
        );
        assert_eq!(Scope::pull("a").texts(), ["repository:a:pull"]);
    }

    #[test]
    fn a_grant_ends_before_it_expires_and_shows_no_secret() {
        let grant = |life| Grant::new("Bearer", "hunter2", life).expect("a header");
        assert!(grant(None).is_fresh());
        assert!(grant(Some(DEFAULT_LIFE)).is_fresh());
        assert!(!grant(Some(MARGIN / 2)).is_fresh());
        assert!(!format!("{:?}", grant(None)).contains("hunter2"));
        assert!(Grant::new("Bearer", "a\nb", None).is_none());
    }
}
