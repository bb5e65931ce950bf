//! Tokens of our own service: who may ask it for what.

use imagespec_build_api::{MadeToken, NewToken, Token, Tokens};
use imagespec_core::builder::BuilderConfig;
use imagespec_core::error::BuildError;
use reqwest::{Method, RequestBuilder};

use crate::options::Options;
use crate::wire::Wire;

/// Whoever looks after the tokens of a service.
#[derive(Debug)]
pub struct Keeper(Wire);

impl Keeper {
    /// Speaks to the service that the options name.
    pub async fn new(config: BuilderConfig<'_>) -> Result<Self, BuildError> {
        let options = Options::read(config.host, config.options)?;
        Ok(Self(Wire::new(config.host, &options).await?))
    }

    /// All tokens that this one may see.
    pub async fn list(&self) -> Result<Vec<Token>, BuildError> {
        let Tokens { tokens } = self.0.get("v1/tokens").await?;
        Ok(tokens)
    }

    /// Makes a token. Its secret is told this once.
    pub async fn add(&self, new: &NewToken) -> Result<MadeToken, BuildError> {
        let body = |request: RequestBuilder| request.json(new);
        let response = self.0.send(Method::POST, "v1/tokens", body, None).await?;
        self.0.answer(response).await
    }

    /// Revokes a token.
    pub async fn remove(&self, id: &str) -> Result<(), BuildError> {
        let path = format!("v1/tokens/{id}");
        let sent = self.0.send(Method::DELETE, &path, |request| request, None);
        sent.await.map(drop)
    }
}
