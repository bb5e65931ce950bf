//! Manifests and indexes of a registry.

use bytes::Bytes;
use imagespec_core::digest::Digest;
use imagespec_http::{HttpError, worth_retrying};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};

use super::auth::Scope;
use super::error::codes;
use super::{Registry, RegistryError};
use crate::image::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, Document, INDEX, MANIFEST,
};

const CONTENT_DIGEST: &str = "docker-content-digest";
const VERSION: &str = "docker-distribution-api-version";

/// What one answer to a request for a manifest comes to.
enum Answer {
    Found(Descriptor, Bytes),
    Absent,
    /// Not an answer: another try may bring one. With what the registry said of when.
    Again(RegistryError, HeaderMap),
}

impl Registry {
    /// The digest of the manifest or index of a tag or digest, if the repository has it.
    pub async fn head_manifest(
        &self,
        repository: &str,
        identifier: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let scope = Scope::pull(repository);
        let response = self.manifest(&scope, Method::HEAD, identifier).await;
        match response {
            Ok(response) if response.status() == StatusCode::OK => {
                if let Some(found) = announced(&response) {
                    return match identifier.parse() {
                        Ok(expected) if expected != found => {
                            Err(RegistryError::Mismatch { expected, found })
                        }
                        _ => Ok(Some(found)),
                    };
                }
            }
            Ok(response)
                if response.status() == StatusCode::NOT_FOUND
                    && response.headers().contains_key(VERSION) =>
            {
                return Ok(None);
            }
            // A connection that broke is tried again by what follows.
            Ok(_) | Err(RegistryError::Unreachable { .. }) => {}
            Err(error) => return Err(error),
        }
        // The body says what the status alone leaves open: a 404 may be a proxy's, a 500 mean that there is
        // nothing, and a 200 without a digest has to be digested here.
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
        let mut tries = self.inner.tuning.retry.tries();
        loop {
            let answer = match self.manifest(&scope, Method::GET, identifier).await {
                Ok(response) => self.judge(&scope, identifier, response).await?,
                Err(error) => Self::again(error, HeaderMap::new())?,
            };
            match answer {
                Answer::Found(descriptor, bytes) => return Ok(Some((descriptor, bytes))),
                Answer::Absent => return Ok(None),
                Answer::Again(error, headers) => {
                    if !tries.again(Some(&headers)).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn judge(
        &self,
        scope: &Scope,
        identifier: &str,
        response: Response,
    ) -> Result<Answer, RegistryError> {
        let headers = response.headers().clone();
        if response.status() == StatusCode::OK {
            let expected = identifier.parse().ok().or_else(|| announced(&response));
            let bytes = match self.document(response).await {
                Ok(bytes) => bytes,
                Err(error) => return Self::again(error, headers),
            };
            let found = Digest::of(&bytes);
            return match expected {
                Some(expected) if expected != found => {
                    Err(RegistryError::Mismatch { expected, found })
                }
                _ => {
                    let document = Document::parse(&bytes, &found)?;
                    let descriptor =
                        Descriptor::new(document.media_type(), found, bytes.len() as u64);
                    Ok(Answer::Found(descriptor, bytes))
                }
            };
        }
        let (status, retry) = (response.status(), worth_retrying(&response));
        let is_registry = headers.contains_key(VERSION);
        let (said, body) = self.read(response).await;
        let says_so = match status {
            StatusCode::NOT_FOUND => is_registry || says_unknown(&body),
            StatusCode::INTERNAL_SERVER_ERROR => says_not_found(&body),
            _ => false,
        };
        match status {
            _ if says_so => Ok(Answer::Absent),
            StatusCode::NOT_FOUND => Err(self.protocol("a 404 that is not a registry's")),
            _ => {
                let error = self.refusal(scope, "a request for a manifest", said, &body);
                if retry {
                    Ok(Answer::Again(error, headers))
                } else {
                    Err(error)
                }
            }
        }
    }

    fn again(error: RegistryError, headers: HeaderMap) -> Result<Answer, RegistryError> {
        match error {
            RegistryError::Unreachable { ref source, .. } if source.may_pass() => {
                Ok(Answer::Again(error, headers))
            }
            error => Err(error),
        }
    }

    /// One try, whatever comes of it.
    async fn manifest(
        &self,
        scope: &Scope,
        method: Method,
        identifier: &str,
    ) -> Result<Response, RegistryError> {
        let url = self.url(&scope.repository, &format!("manifests/{identifier}"));
        let accepted = [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        self.send_once(scope, |client| {
            client
                .request(method.clone(), url.clone())
                .header(ACCEPT, &accepted)
        })
        .await
    }

    async fn document(&self, response: Response) -> Result<Bytes, RegistryError> {
        let read = self.inner.http.read(response, DOCUMENT_LIMIT).await;
        read.map_err(|error| match error {
            HttpError::TooLarge { .. } => self.protocol("a manifest is too large"),
            error => self.unreachable(error),
        })
    }

    /// Gives a manifest or index a tag, or with its own digest just keeps it. What it refers to must be there.
    /// A tag that the registry does not let anybody change may only be given to what has it already.
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
        let mut tries = self.inner.tuning.retry.tries();
        let response = loop {
            let response = self
                .send(&scope, |client| {
                    client
                        .put(url.clone())
                        .header(CONTENT_TYPE, media_type)
                        .body(bytes.clone())
                })
                .await?;
            let status = response.status();
            if status.is_success() {
                break response;
            }
            let (said, body) = self.read(response).await;
            let error = self.refusal(&scope, "a manifest", said, &body);
            // Some hear of their own blobs a moment later, or while others push the same.
            if matches!(error, RegistryError::Incomplete { .. }) && tries.again(None).await {
                continue;
            }
            return self
                .refused(&scope, identifier, digest, (status, &body), error)
                .await;
        };
        match announced(&response) {
            Some(found) if found != digest => Err(RegistryError::Mismatch {
                expected: digest,
                found,
            }),
            _ => Ok(digest),
        }
    }

    /// What follows from a manifest that the registry does not take.
    async fn refused(
        &self,
        scope: &Scope,
        identifier: &str,
        digest: Digest,
        (status, body): (StatusCode, &[u8]),
        error: RegistryError,
    ) -> Result<Digest, RegistryError> {
        let is_tag = identifier.parse::<Digest>().is_err();
        // Registries say it with 400, 403, 405, 409 and 412.
        let may_be_fixed = is_tag
            && status.is_client_error()
            && !matches!(
                status,
                StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::TOO_MANY_REQUESTS
            );
        if !may_be_fixed {
            return Err(error);
        }
        match self.head_manifest(&scope.repository, identifier).await {
            Ok(Some(found)) if found == digest => Ok(digest),
            Ok(Some(found)) if says_immutable(status, body) => Err(RegistryError::Immutable {
                registry: self.inner.name.clone(),
                repository: scope.repository.clone(),
                tag: identifier.to_owned(),
                found,
            }),
            _ => Err(error),
        }
    }
}

/// The digest that an answer says its content, or what was sent, has.
pub(super) fn announced(response: &Response) -> Option<Digest> {
    let digest = response.headers().get(CONTENT_DIGEST)?;
    digest.to_str().ok()?.parse().ok()
}

/// Whether a body is a registry's way to say that there is no such image.
fn says_unknown(body: &[u8]) -> bool {
    let known = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"];
    let errors = codes(body).unwrap_or_default();
    errors
        .iter()
        .any(|error| known.contains(&error.code.as_str()))
}

/// Harbor's way to say it, with status 500: `unknown: repository team/app not found`, or an artifact.
fn says_not_found(body: &[u8]) -> bool {
    let errors = codes(body).unwrap_or_default();
    errors.iter().any(|error| {
        let message = error.message();
        error.code.eq_ignore_ascii_case("unknown")
            && ["repository ", "artifact "]
                .iter()
                .any(|what| message.trim_start_matches("unknown: ").starts_with(what))
            && message.ends_with(" not found")
    })
}

/// Whether a refusal is that of a tag which may not be changed.
fn says_immutable(status: StatusCode, body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body).to_lowercase();
    matches!(
        status,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED
    ) || ["immutab", "overwrit", "already exist", "locked"]
        .iter()
        .any(|word| said.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_failures_mean_that_there_is_nothing() {
        let body = |code: &str, message: &str| {
            format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#)
        };
        for (code, message, absent) in [
            ("UNKNOWN", "unknown: repository team/app not found", true),
            ("UNKNOWN", "repository team/app not found", true),
            ("UNKNOWN", "unknown: artifact team/app:1 not found", true),
            ("UNKNOWN", "unknown: database not found", false),
            ("UNKNOWN", "repository team/app is busy", false),
            ("DENIED", "repository team/app not found", false),
        ] {
            let said = says_not_found(body(code, message).as_bytes());
            assert_eq!(said, absent, "{message}");
        }
        assert!(!says_not_found(b"unknown: repository x not found"));
        assert!(says_unknown(body("NAME_UNKNOWN", "").as_bytes()));
        assert!(!says_unknown(body("DENIED", "").as_bytes()));
    }

    #[test]
    fn registries_say_in_their_own_ways_that_a_tag_is_fixed() {
        for (status, body, fixed) in [
            (
                400,
                "The image tag '1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable.",
                true,
            ),
            (412, "", true),
            (409, "", true),
            (403, "Not enough permissions to overwrite artifact", true),
            (400, "manifest invalid", false),
            (403, "denied", false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(says_immutable(status, body.as_bytes()), fixed, "{body}");
        }
    }
}
