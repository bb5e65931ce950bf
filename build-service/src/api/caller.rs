//! Who asks.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use imagespec_build_api::{PROJECT_HEADER, Scope, Token};

use super::Refusal;
use crate::service::Service;
use crate::tokens;

/// Whoever asks, with a token that is known.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) token: Token,
    /// The project it is about.
    pub(crate) project: String,
}

impl Caller {
    /// Whoever has a secret.
    pub(crate) async fn of(
        service: &Service,
        secret: Option<&str>,
        project: Option<&str>,
    ) -> Result<Self, Refusal> {
        let found = match secret {
            Some(secret) => tokens::find(&service.database, secret).await?,
            None => None,
        };
        let token = found.ok_or_else(Refusal::unknown)?;
        let project = tokens::project(&token, project)
            .filter(|project| tokens::is_project(project))
            .ok_or_else(|| Refusal::absent("there is no such project"))?;
        Ok(Self { token, project })
    }

    /// Refuses whoever may not do as much.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Refusal> {
        if self.token.scope >= scope {
            return Ok(());
        }
        Err(Refusal::forbidden(format!(
            "this needs a token with scope `{}`, and this one has `{}`",
            scope.name(),
            self.token.scope.name()
        )))
    }
}

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Self, Refusal> {
        let headers = &parts.headers;
        let text = |value: &axum::http::HeaderValue| value.to_str().ok().map(str::to_owned);
        let project = headers.get(PROJECT_HEADER).and_then(text);
        let secret = headers.get(AUTHORIZATION).and_then(text);
        let secret = secret.as_deref().and_then(bearer);
        Self::of(service, secret, project.as_deref()).await
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}
