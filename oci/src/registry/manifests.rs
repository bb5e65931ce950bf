//! Manifests and indexes of a registry.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};

use super::auth::Scope;
use super::error::{codes, prefix};
use super::{Registry, RegistryError};
use crate::image::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, Document, INDEX, MANIFEST,
};
use crate::reference::Reference;

const CONTENT_DIGEST: &str = "docker-content-digest";

impl Registry {
    /// The digest of the image that `reference` names. `Ok(None)` says that the registry certainly has no
    /// such image; everything short of certainty is an error of kind [`ErrorKind::Unknown`].
    pub async fn exists(&self, reference: &Reference) -> Result<Option<Digest>, BuildError> {
        self.head_manifest(&reference.repository, &reference.identifier())
            .await
            .map_err(|error| BuildError {
                kind: match error {
                    RegistryError::Interrupted => ErrorKind::Interrupted,
                    _ => ErrorKind::Unknown,
                },
                ..BuildError::from(error).context(format!(
                    "cannot tell whether the image exists: `{reference}`"
                ))
            })
    }

    /// The digest of the manifest or index of a tag or digest, if the repository has it.
    pub async fn head_manifest(
        &self,
        repository: &str,
        identifier: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let scope = Scope::pull(repository);
        let response = self.manifest(&scope, Method::HEAD, identifier).await?;
        if response.status() == StatusCode::OK
            && let Some(digest) = announced(&response)
        {
            return Ok(Some(digest));
        }
        // The body says what the status alone leaves open: a 404 may be a proxy's, a 200 without a digest
        // has to be digested here.
        let found = self.get_manifest(repository, identifier).await?;
        Ok(found.map(|(descriptor, _)| descriptor.digest))
    }

    /// The manifest or index of a tag or digest, verified, if the repository has it.
    pub async fn get_manifest(
        &self,
        repository: &str,
        identifier: &str,
    ) -> Result<Option<(Descriptor, Bytes)>, RegistryError> {
        let scope = Scope::pull(repository);
        let response = self.manifest(&scope, Method::GET, identifier).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return self.absent(response).await,
            _ => {
                return Err(self
                    .unexpected(&scope, "a request for a manifest", response)
                    .await);
            }
        }
        let expected = identifier.parse().ok().or_else(|| announced(&response));
        let bytes = self.document(response).await?;
        let found = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != found => {
                return Err(RegistryError::Mismatch { expected, found });
            }
            _ => {}
        }
        let document = Document::parse(&bytes, &found)?;
        let descriptor = Descriptor::new(document.media_type(), found, bytes.len() as u64);
        Ok(Some((descriptor, bytes)))
    }

    async fn manifest(
        &self,
        scope: &Scope,
        method: Method,
        identifier: &str,
    ) -> Result<Response, RegistryError> {
        let url = self.url(&scope.repository, &format!("manifests/{identifier}"));
        let accepted = [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        self.send(scope, |client| {
            client
                .request(method.clone(), url.clone())
                .header(ACCEPT, &accepted)
        })
        .await
    }

    /// `None` for a 404 of a registry; an error for one of somebody else who answers in its place.
    async fn absent<T>(&self, response: Response) -> Result<Option<T>, RegistryError> {
        let is_registry = response
            .headers()
            .contains_key("docker-distribution-api-version");
        let known = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"];
        let errors = codes(&prefix(response).await).unwrap_or_default();
        let says_so = errors
            .iter()
            .any(|error| known.contains(&error.code.as_str()));
        if is_registry || says_so {
            return Ok(None);
        }
        Err(self.protocol("a 404 that is not a registry's"))
    }

    async fn document(&self, response: Response) -> Result<Bytes, RegistryError> {
        let mut bytes = BytesMut::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|source| {
                let (url, source) = (self.inner.base.to_string(), source.without_url());
                self.unreachable(imagespec_http::HttpError::Transport { url, source })
            })?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > DOCUMENT_LIMIT {
                return Err(self.protocol("a manifest is too large"));
            }
        }
        Ok(bytes.freeze())
    }

    /// Gives a manifest or index a tag, or with its own digest just keeps it. What it refers to must be there.
    pub async fn put_manifest(
        &self,
        repository: &str,
        identifier: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, RegistryError> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let scope = Scope::push(repository);
        let url = self.url(repository, &format!("manifests/{identifier}"));
        let response = self
            .send(&scope, |client| {
                client
                    .put(url.clone())
                    .header(CONTENT_TYPE, media_type)
                    .body(bytes.clone())
            })
            .await?;
        if !response.status().is_success() {
            return Err(self.unexpected(&scope, "a manifest", response).await);
        }
        match announced(&response) {
            Some(found) if found != digest => Err(RegistryError::Mismatch {
                expected: digest,
                found,
            }),
            _ => Ok(digest),
        }
    }
}

fn announced(response: &Response) -> Option<Digest> {
    let digest = response.headers().get(CONTENT_DIGEST)?;
    digest.to_str().ok()?.parse().ok()
}
