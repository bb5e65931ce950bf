//! The container engine of this machine, over the HTTP API of Docker, which Podman speaks too.

use std::collections::BTreeMap;
use std::path::Path;

use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_http::Client;
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio_util::io::{ReaderStream, SyncIoBridge};
use url::Url;

use crate::archive;
use crate::image::Descriptor;
use crate::manifest::nullable;
use crate::store::BlobStore;

/// Where Docker listens when nobody says.
const SOCKET: &str = "/var/run/docker.sock";
/// Bytes between whoever writes an archive and whoever sends it.
const BUFFER: usize = 256 * 1024;
/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 4 << 20;

/// An engine that may be listening.
#[derive(Debug, Clone)]
pub struct Engine {
    http: Client,
    base: Url,
    address: String,
}

/// Why an engine does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Its address is of a kind that is not spoken.
    #[error("cannot speak with the engine of `DOCKER_HOST`: `{0}`")]
    Address(String),
    /// Nobody answers.
    #[error("no container engine answers: `{address}`")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It answers, but not with success.
    #[error("the container engine refuses {request}")]
    Refused {
        /// What was asked for.
        request: &'static str,
        /// What it says.
        source: Refusal,
    },
    /// The image cannot be read here.
    #[error("cannot send the image to the container engine")]
    Image(#[from] std::io::Error),
}

/// What an engine says when it refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl From<EngineError> for BuildError {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::Address(_) => ErrorKind::Input,
            EngineError::Unreachable { .. } | EngineError::Refused { .. } => ErrorKind::Unavailable,
            EngineError::Image(_) => ErrorKind::Failed,
        };
        let built = Self::new(kind, error.to_string()).caused_by_source_of(&error);
        match &error {
            EngineError::Address(_) => {
                built.hint("addresses: `unix:///PATH` and, without TLS, `tcp://HOST:PORT`")
            }
            EngineError::Unreachable { .. } => built.hint(
                "start the engine, or name its address in `DOCKER_HOST`; `--output store` and `tar:FILE` need none",
            ),
            EngineError::Refused { .. } | EngineError::Image(_) => built,
        }
    }
}

/// What an engine knows of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EngineImage {
    /// Its id.
    pub id: String,
    /// Bytes of its layers, unpacked.
    #[serde(default)]
    pub size: u64,
    /// How it is run.
    #[serde(default)]
    config: EngineConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EngineConfig {
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

impl EngineImage {
    /// Its labels.
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.config.labels
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Said {
    message: Option<String>,
    error: Option<String>,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, else Docker's own socket. Contacts nothing.
    pub fn new(host: &Host) -> Result<Self, EngineError> {
        let address = host
            .variable("DOCKER_HOST")
            .map_or_else(|| format!("unix://{SOCKET}"), str::to_owned);
        let unknown = || EngineError::Address(address.clone());
        let tls = host.variable("DOCKER_TLS_VERIFY").is_some();
        let (socket, url) = match address.split_once("://") {
            Some(("unix", path)) if cfg!(unix) => {
                (Some(Path::new(path)), "http://localhost".to_owned())
            }
            Some(("tcp" | "http", rest)) if !tls => (None, format!("http://{rest}")),
            _ => return Err(unknown()),
        };
        Ok(Self {
            http: Client::local(socket).map_err(|_| unknown())?,
            base: Url::parse(&url).map_err(|_| unknown())?,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The version of the engine, if it answers.
    pub async fn version(&self) -> Result<String, EngineError> {
        let asked = "to say its version";
        let response = self
            .ask(asked, self.request(Method::GET, &["version"], &[]))
            .await?;
        let version: Version = self.document(asked, response).await?;
        Ok(version.version)
    }

    /// The image of a name, if the engine has it.
    pub async fn find(&self, reference: &str) -> Result<Option<EngineImage>, EngineError> {
        let asked = "to look for an image";
        let request = self.request(Method::GET, &["images", reference, "json"], &[]);
        let response = self.sent(request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = self.accepted(asked, response).await?;
        self.document(asked, response).await.map(Some)
    }

    /// Gives an image that the engine has one more name: a repository and a tag.
    pub async fn tag(
        &self,
        reference: &str,
        repository: &str,
        tag: &str,
    ) -> Result<(), EngineError> {
        let name = [("repo", repository), ("tag", tag)];
        let request = self.request(Method::POST, &["images", reference, "tag"], &name);
        self.ask("a name for an image", request).await.map(drop)
    }

    /// Loads the image of a platform under its names, streamed as `docker load` would send it. All its blobs must be
    /// in the store.
    pub async fn load(
        &self,
        store: &BlobStore,
        image: &Descriptor,
        platform: &Platform,
        references: &[String],
    ) -> Result<(), EngineError> {
        let asked = "to load an image";
        let (reader, writer) = tokio::io::duplex(BUFFER);
        let (store, image) = (store.clone(), image.clone());
        let (platform, references) = (platform.clone(), references.to_vec());
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = SyncIoBridge::new(writer);
            archive::stream(&store, &image, &platform, &references, &mut writer)?;
            writer.shutdown()
        });
        let request = self
            .request(Method::POST, &["images", "load"], &[("quiet", "1")])
            .header("content-type", "application/x-tar")
            .body(Body::wrap_stream(ReaderStream::with_capacity(
                reader, BUFFER,
            )));
        let response = self.sent(request).await;
        // An archive that could not be written is why the engine refuses what came of it; an engine that hangs up is
        // why the archive could not be written.
        if let Ok(Err(error)) = written.await
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
        let response = self.accepted(asked, response?).await?;
        let text = self.text(response).await?;
        let mut said = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        match said.find_map(|said: Said| said.error) {
            None => Ok(()),
            Some(error) => Err(EngineError::Refused {
                request: asked,
                source: Refusal(error),
            }),
        }
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .clear()
                .extend(path.iter().flat_map(|part| part.split('/')));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.inner().request(method, url)
    }

    async fn ask(
        &self,
        asked: &'static str,
        request: RequestBuilder,
    ) -> Result<Response, EngineError> {
        let response = self.sent(request).await?;
        self.accepted(asked, response).await
    }

    async fn sent(&self, request: RequestBuilder) -> Result<Response, EngineError> {
        request
            .send()
            .await
            .map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: reqwest::Error) -> EngineError {
        EngineError::Unreachable {
            address: self.address.clone(),
            source: source.without_url(),
        }
    }

    async fn accepted(
        &self,
        asked: &'static str,
        response: Response,
    ) -> Result<Response, EngineError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = self.text(response).await.unwrap_or_default();
        let said = serde_json::from_str::<Said>(&text)
            .ok()
            .and_then(|said| said.message);
        Err(EngineError::Refused {
            request: asked,
            source: Refusal(said.unwrap_or_else(|| status.to_string())),
        })
    }

    async fn document<T: serde::de::DeserializeOwned>(
        &self,
        asked: &'static str,
        response: Response,
    ) -> Result<T, EngineError> {
        let text = self.text(response).await?;
        serde_json::from_str(&text).map_err(|error| EngineError::Refused {
            request: asked,
            source: Refusal(format!("an answer that is not one: {error}")),
        })
    }

    /// The body of an answer, as far as it is read.
    async fn text(&self, mut response: Response) -> Result<String, EngineError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(error))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_LIMIT {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(variables: &[(&str, &str)]) -> Host {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Host {
            variables: variables.iter().map(owned).collect(),
            ..Host::default()
        }
    }

    #[test]
    fn an_engine_is_where_docker_host_says() {
        let address = |variables: &[(&str, &str)]| {
            Engine::new(&host(variables)).map(|engine| (engine.address, engine.base.to_string()))
        };
        let socket = (
            "unix:///var/run/docker.sock".to_owned(),
            "http://localhost/".to_owned(),
        );
        assert_eq!(address(&[]).expect("an address"), socket);
        let tcp = [("DOCKER_HOST", "tcp://127.0.0.1:2375")];
        assert_eq!(
            address(&tcp).expect("an address").1,
            "http://127.0.0.1:2375/"
        );
        for unknown in [
            &[("DOCKER_HOST", "ssh://me@host")][..],
            &[("DOCKER_HOST", "host")],
            &[tcp[0], ("DOCKER_TLS_VERIFY", "1")],
        ] {
            assert!(matches!(address(unknown), Err(EngineError::Address(_))));
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = format!("unix://{}/none.sock", folder.path().display());
        let engine = Engine::new(&host(&[("DOCKER_HOST", &socket)])).expect("an address");
        let error = BuildError::from(engine.version().await.expect_err("nobody"));
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(
            error.message,
            format!("no container engine answers: `{socket}`")
        );
    }
}
