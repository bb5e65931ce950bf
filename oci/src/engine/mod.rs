//! The container engine of this machine, over the HTTP API of Docker, which Podman speaks too.

mod endpoint;
mod ssh;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::{
    ImportImageOptions, PushImageOptions, RemoveImageOptions, TagImageOptions,
};
use futures::{Stream, StreamExt as _};
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use tokio_util::io::{ReaderStream, SyncIoBridge};

pub use endpoint::{Endpoint, Stream as EngineStream};

use crate::archive;
use crate::image::Descriptor;
use crate::reference::Reference;
use crate::store::BlobStore;

/// Bytes between whoever writes an archive and whoever sends it.
const BUFFER: usize = 256 * 1024;
/// How long an engine may take to say that it is there, or its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that may be listening.
#[derive(Debug, Clone)]
pub struct Engine {
    endpoint: Endpoint,
}

/// Why an engine does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Its address is of a kind that is not spoken.
    #[error("cannot speak with the engine that {source_of} names: `{address}`")]
    Address {
        /// The address.
        address: String,
        /// Who names it.
        source_of: String,
    },
    /// A context of Docker's command that is in use cannot be read.
    #[error("cannot read Docker's context `{name}`")]
    Context {
        /// Its name.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Nobody answers.
    #[error("no container engine answers: `{address}`")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: Error,
    },
    /// Its socket is not open to this user.
    #[error("the container engine is not open to this user: `{address}`")]
    Denied {
        /// Where.
        address: String,
    },
    /// It answers, but not in time.
    #[error("the container engine does not answer within {} s: `{address}`", PATIENCE.as_secs())]
    Silent {
        /// Where.
        address: String,
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
            EngineError::Address { .. } | EngineError::Context { .. } => ErrorKind::Input,
            EngineError::Unreachable { .. }
            | EngineError::Denied { .. }
            | EngineError::Silent { .. }
            | EngineError::Refused { .. } => ErrorKind::Unavailable,
            EngineError::Image(_) => ErrorKind::Failed,
        };
        let built = Self::new(kind, error.to_string()).caused_by_source_of(&error);
        match &error {
            EngineError::Address { .. } => built.hint("addresses: `unix:///PATH`, `tcp://HOST:PORT` and `ssh://HOST:PORT`"),
            EngineError::Context { .. } => {
                built.hint("`docker context use default` leaves it; `DOCKER_HOST` goes before it")
            }
            EngineError::Unreachable { .. } | EngineError::Silent { .. } => built.hint(
                "start the engine, or name its address in `DOCKER_HOST`; `--builder native --output store` needs none",
            ),
            EngineError::Denied { .. } => built.hint(
                "add the user to the group of the socket (`docker`, mostly), or name an engine of its own in `DOCKER_HOST`",
            ),
            EngineError::Refused { .. } | EngineError::Image(_) => built,
        }
    }
}

/// What an engine knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineImage {
    /// Its id.
    pub id: String,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `repository@digest` of each registry that it was pushed to or pulled from.
    pub digests: Vec<String>,
}

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineVersion {
    /// Its name: `Docker` or `Podman`.
    pub name: &'static str,
    /// Its version: `20.10.24`.
    pub version: String,
    /// The newest version of the API that it speaks: `1.41`.
    pub api: String,
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Engine {
    /// The engine of this machine: see [`Endpoint::find`]. Contacts nothing.
    pub fn new(host: &Host) -> Result<Self, EngineError> {
        let endpoint = Endpoint::find(host)?;
        Ok(Self { endpoint })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.endpoint.address()
    }

    /// Where it listens, and who says so.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the engine is, if it answers. It asks other programs for theirs first: that takes milliseconds.
    pub async fn version(&self) -> Result<EngineVersion, EngineError> {
        let client = self.client()?;
        self.soon("to say its version", client.version_of_engine())
            .await
    }

    /// Makes sure that the engine answers.
    pub async fn answers(&self) -> Result<(), EngineError> {
        let client = self.client()?;
        self.soon("to say that it is there", client.0.ping())
            .await?;
        Ok(())
    }

    /// What the engine says to a question that takes it no time.
    async fn soon<T>(
        &self,
        what: &'static str,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        let said = tokio::time::timeout(PATIENCE, asked).await;
        let said = said.map_err(|_| EngineError::Silent {
            address: self.address(),
        })?;
        said.map_err(|error| self.error(what, error))
    }

    /// The image of a name, if the engine has it.
    pub async fn find(&self, reference: &str) -> Result<Option<EngineImage>, EngineError> {
        match self.client()?.inspect_image(reference).await {
            Ok(image) => Ok(Some(EngineImage {
                id: image.id.unwrap_or_default(),
                size: image
                    .size
                    .and_then(|size| size.try_into().ok())
                    .unwrap_or_default(),
                labels: image
                    .config
                    .and_then(|config| config.labels)
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
                digests: image.repo_digests.unwrap_or_default(),
            })),
            Err(Error::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            Err(error) => Err(self.error("to look for an image", error)),
        }
    }

    /// Gives an image that the engine has one more name: a repository and a tag.
    pub async fn tag(
        &self,
        reference: &str,
        repository: &str,
        tag: &str,
    ) -> Result<(), EngineError> {
        let name = TagImageOptions {
            repo: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
        };
        let tagged = self.client()?.tag_image(reference, Some(name)).await;
        tagged.map_err(|error| self.error("a name for an image", error))
    }

    /// Takes a name from an image, and the image away where that was its last one.
    pub async fn remove(&self, reference: &str) -> Result<(), EngineError> {
        let options = Some(RemoveImageOptions::default());
        let removed = self.client()?.remove_image(reference, options, None).await;
        match removed {
            Ok(_)
            | Err(Error::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(()),
            Err(error) => Err(self.error("to remove an image", error)),
        }
    }

    /// Has the engine push a tag of a repository, with a login that it does not keep. `progress` takes each state of
    /// a layer: its name, the bytes that are sent, and the bytes in all where that is known.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        login: Option<DockerCredentials>,
        progress: &(dyn Fn(&str, u64, Option<u64>) + Send + Sync),
    ) -> Result<(), EngineError> {
        let options = PushImageOptions {
            tag: Some(tag.to_owned()),
            ..PushImageOptions::default()
        };
        let client = self.client()?;
        let mut said = Box::pin(client.push_image(repository, Some(options), login));
        while let Some(said) = said.next().await {
            let said = said.map_err(|error| self.error("to push an image", error))?;
            if let Some(message) = said.error_detail.and_then(|error| error.message) {
                return Err(refused("to push an image", message));
            }
            if let (Some(status), Some(detail)) = (said.status, said.progress_detail) {
                let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
                let done = number(detail.current).unwrap_or_default();
                progress(&status, done, number(detail.total));
            }
        }
        Ok(())
    }

    /// The bytes of an archive of an image, as `docker save` would write it.
    pub fn save(
        &self,
        reference: &str,
    ) -> Result<impl Stream<Item = Result<bytes::Bytes, EngineError>> + use<>, EngineError> {
        let (client, this) = (self.client()?, self.clone());
        let reference = reference.to_owned();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            let mut bytes = Box::pin(client.export_image(&reference));
            while let Some(chunk) = bytes.next().await {
                let chunk = chunk.map_err(|error| this.error("to save an image", error));
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
        });
        Ok(futures::stream::unfold(receiver, |mut receiver| async {
            let chunk = receiver.recv().await?;
            Some((chunk, receiver))
        }))
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
        let client = self.client()?;
        let (reader, writer) = tokio::io::duplex(BUFFER);
        let (store, image) = (store.clone(), image.clone());
        let platform = platform.clone();
        // Podman has a registry of its own for names in short.
        let full = |name: &String| name.parse::<Reference>().map(|name| name.to_string());
        let references: Result<Vec<_>, _> = references.iter().map(full).collect();
        let references = references.map_err(std::io::Error::other)?;
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = SyncIoBridge::new(writer);
            archive::stream(&store, &image, &platform, &references, &mut writer)?;
            writer.shutdown()
        });
        let options = ImportImageOptions {
            quiet: true,
            ..ImportImageOptions::default()
        };
        let body = ReaderStream::with_capacity(reader, BUFFER);
        let mut said = Box::pin(client.import_image_stream(options, body, None));
        let mut refusal = None;
        while let Some(said) = said.next().await {
            match said {
                Ok(said) => {
                    if let Some(message) = said.error_detail.and_then(|error| error.message) {
                        refusal.get_or_insert(refused(asked, message));
                    }
                }
                Err(error) => {
                    refusal.get_or_insert(self.error(asked, error));
                    break;
                }
            }
        }
        drop(said);
        // An archive that could not be written is why the engine refuses what came of it; an engine that hangs up is
        // why the archive could not be written.
        if let Ok(Err(error)) = written.await
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
        refusal.map_or(Ok(()), Err)
    }

    fn client(&self) -> Result<Client, EngineError> {
        let client = self.endpoint.client();
        client
            .map(Client)
            .map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: Error) -> EngineError {
        let chain = std::iter::successors(
            Some(&source as &(dyn std::error::Error + 'static)),
            |error| error.source(),
        );
        let is_denied =
            |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        if chain
            .filter_map(|error| error.downcast_ref())
            .any(is_denied)
        {
            return EngineError::Denied {
                address: self.address(),
            };
        }
        EngineError::Unreachable {
            address: self.address(),
            source,
        }
    }

    fn error(&self, request: &'static str, error: Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { message, .. } => refused(request, message),
            Error::DockerStreamError { error } => refused(request, error),
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                refused(request, format!("an answer that is not one: {error}"))
            }
            error => self.unreachable(error),
        }
    }
}

fn refused(request: &'static str, message: String) -> EngineError {
    EngineError::Refused {
        request,
        source: Refusal(message),
    }
}

/// A client of an engine's API.
struct Client(Docker);

impl std::ops::Deref for Client {
    type Target = Docker;

    fn deref(&self) -> &Docker {
        &self.0
    }
}

impl Client {
    async fn version_of_engine(&self) -> Result<EngineVersion, Error> {
        let said = self.0.version().await?;
        let components = said.components.unwrap_or_default();
        let podman = components.iter().any(|part| part.name.contains("Podman"));
        Ok(EngineVersion {
            name: if podman { "Podman" } else { "Docker" },
            version: said.version.unwrap_or_default(),
            api: said.api_version.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = format!("unix://{}/none.sock", folder.path().display());
        let host = Host {
            variables: [("DOCKER_HOST".to_owned(), socket.clone())].into(),
            ..Host::default()
        };
        let engine = Engine::new(&host).expect("an address");
        let error = BuildError::from(engine.version().await.expect_err("nobody"));
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(
            error.message,
            format!("no container engine answers: `{socket}`")
        );
    }
}
