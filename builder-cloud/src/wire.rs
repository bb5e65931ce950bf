//! Our own service over HTTP.

use std::io::Read;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use imagespec_build_api::{
    Accepted, Build, Failure, Files, Found, OFFSET_HEADER, PACK, PACKED, PROJECT_HEADER, VERSION,
    VERSION_HEADER, Version, Wanted,
};
use imagespec_core::builder::BuiltImage;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_http::{Client, HttpError};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use sse_stream::SseStream;
use tokio_stream::wrappers::ReceiverStream;
use url::Url;

use crate::options::Options;
use crate::remote::{Gone, Open, Remote, Submitted, Told};

/// The most bytes of an answer.
const ANSWER: u64 = 64 << 20;
/// Bytes of a file that are read at once.
const CHUNK: usize = 256 << 10;
/// How often an upload goes on that broke off.
const TRIES: usize = 5;

/// A service at an address, and whoever asks it.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    client: Client,
    endpoint: Url,
    token: Token,
    project: Option<String>,
}

/// Is not shown.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Wire {
    pub(crate) async fn new(host: &Host, options: &Options) -> Result<Self, BuildError> {
        let endpoint = options.endpoint()?.clone();
        let client = Client::with_settings(&options.settings()).map_err(|error| {
            BuildError::input("cannot speak to the build service")
                .field("builder_options")
                .caused_by(&error)
        })?;
        Ok(Self {
            client,
            endpoint,
            token: Token(options.token(host).await?),
            project: options.project.clone(),
        })
    }

    fn request(&self, client: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        // Our paths are sound below any base.
        let url = self
            .endpoint
            .join(path)
            .unwrap_or_else(|_| self.endpoint.clone());
        let mut request = client
            .request(method, url)
            .header(VERSION_HEADER, VERSION)
            .header(AUTHORIZATION, format!("Bearer {}", self.token.0));
        if let Some(project) = &self.project {
            request = request.header(PROJECT_HEADER, project);
        }
        request
    }

    fn lost(&self, error: &HttpError) -> BuildError {
        let message = format!("cannot reach the build service at `{}`", self.endpoint);
        BuildError::unavailable(message)
            .caused_by(error)
            .hint("check that it runs there, and the option `endpoint`")
    }

    /// Sends a request, and makes an error of any answer that is neither a success nor expected.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Fn(RequestBuilder) -> RequestBuilder,
        expected: Option<StatusCode>,
    ) -> Result<Response, BuildError> {
        let request = |client: &reqwest::Client| {
            let request = self.request(client, method.clone(), path);
            body(request)
        };
        let response = self.client.send(request).await;
        let response = response.map_err(|error| self.lost(&error))?;
        self.checked(response, expected).await
    }

    async fn checked(
        &self,
        response: Response,
        expected: Option<StatusCode>,
    ) -> Result<Response, BuildError> {
        let status = response.status();
        let spoken = response.headers().get(VERSION_HEADER);
        let is_ours = spoken.is_some();
        if status.is_success() && is_ours || Some(status) == expected {
            return Ok(response);
        }
        let body = self.client.read(response, ANSWER).await;
        let body = body.unwrap_or_default();
        if let (true, Ok(Failure { error })) = (is_ours, serde_json::from_slice(&body)) {
            return Err(error);
        }
        let message = format!("no build service answers at `{}`", self.endpoint);
        let said = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let cause = std::io::Error::other(format!("{status}: {}", said.trim()));
        Err(BuildError::unavailable(message)
            .caused_by(&cause)
            .hint("check the option `endpoint`"))
    }

    pub(crate) async fn answer<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, BuildError> {
        let body = self.client.read(response, ANSWER).await;
        let body = body.map_err(|error| self.lost(&error))?;
        serde_json::from_slice(&body).map_err(|error| {
            let message = format!("cannot understand the build service at `{}`", self.endpoint);
            BuildError::unavailable(message).caused_by(&error)
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BuildError> {
        let response = self
            .send(Method::GET, path, |request| request, None)
            .await?;
        self.answer(response).await
    }

    /// With which byte the upload of a file goes on; `None` where it is there.
    async fn offset(&self, path: &str) -> Result<Option<u64>, BuildError> {
        let absent = Some(StatusCode::NOT_FOUND);
        let response = self
            .send(Method::HEAD, path, |request| request, absent)
            .await?;
        if response.status().is_success() {
            return Ok(None);
        }
        Ok(Some(offset_of(&response)))
    }
}

fn offset_of(response: &Response) -> u64 {
    let offset = response.headers().get(OFFSET_HEADER);
    let offset = offset.and_then(|offset| offset.to_str().ok()?.parse().ok());
    offset.unwrap_or(0)
}

#[async_trait]
impl Remote for Wire {
    async fn hello(&self) -> Result<String, BuildError> {
        let version: Version = self.get("v1/version").await?;
        Ok(format!(
            "imagespec {} at {}",
            version.service, self.endpoint
        ))
    }

    async fn find(&self, wanted: &Wanted) -> Result<Option<BuiltImage>, BuildError> {
        let body = |request: RequestBuilder| request.json(wanted);
        let response = self
            .send(Method::POST, "v1/images/find", body, None)
            .await?;
        let found: Found = self.answer(response).await?;
        Ok(found.image)
    }

    async fn missing(&self, files: &[Digest]) -> Result<Vec<Digest>, BuildError> {
        let files = Files {
            files: files.to_vec(),
        };
        let body = |request: RequestBuilder| request.json(&files);
        let response = self
            .send(Method::POST, "v1/files/missing", body, None)
            .await?;
        let Files { files } = self.answer(response).await?;
        Ok(files)
    }

    fn packing(&self) -> (u64, u64) {
        (PACKED, PACK / 2)
    }

    async fn send_pack(&self, files: Vec<(Digest, Bytes)>) -> Result<(), BuildError> {
        let unwritten = |error: std::io::Error| {
            BuildError::failed("cannot pack files of the build context").caused_by(&error)
        };
        let mut pack = tar::Builder::new(Vec::new());
        for (digest, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            pack.append_data(&mut header, digest.hex(), &*content)
                .map_err(unwritten)?;
        }
        let pack = Bytes::from(pack.into_inner().map_err(unwritten)?);
        let body = |request: RequestBuilder| request.body(pack.clone());
        self.send(Method::POST, "v1/files", body, None)
            .await
            .map(drop)
    }

    async fn send(&self, digest: &Digest, size: u64, open: Open<'_>) -> Result<(), BuildError> {
        let path = format!("v1/files/{digest}");
        let uploads = self.client.uploads();
        let uploads = uploads.map_err(|error| self.lost(&error))?;
        let mut tries = self.client.retry().tries();
        let mut offset = 0;
        for _ in 0..TRIES {
            let body = rest(open, offset).map_err(|error| {
                BuildError::input("cannot read a file of the build context").caused_by(&error)
            })?;
            let mut request = self.request(uploads, Method::PUT, &path).body(body);
            if offset > 0 {
                request = request.header(OFFSET_HEADER, offset);
            }
            let lost = match request.send().await {
                Ok(response) if response.status() == StatusCode::CONFLICT => {
                    offset = offset_of(&response);
                    continue;
                }
                Ok(response) if response.status().is_server_error() => {
                    self.checked(response, None).await.err()
                }
                Ok(response) => return self.checked(response, None).await.map(drop),
                Err(error) => Some(
                    BuildError::unavailable(format!(
                        "an upload of {size} bytes to the build service broke off"
                    ))
                    .caused_by(&error.without_url()),
                ),
            };
            if !tries.again(None).await {
                return lost.map_or(Ok(()), Err);
            }
            match self.offset(&path).await? {
                Some(there) => offset = there,
                None => return Ok(()),
            }
        }
        Err(BuildError::unavailable(
            "an upload to the build service broke off too often",
        ))
    }

    async fn submit(&self, wanted: &Wanted) -> Result<Submitted, BuildError> {
        let lacking = Some(StatusCode::CONFLICT);
        let body = |request: RequestBuilder| request.json(wanted);
        let response = self.send(Method::POST, "v1/builds", body, lacking).await?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(Submitted::Lacking);
        }
        let Accepted { id, created } = self.answer(response).await?;
        Ok(Submitted::Accepted { id, created })
    }

    async fn show(&self, id: &str) -> Result<Build, BuildError> {
        self.get(&format!("v1/builds/{id}")).await
    }

    async fn events(
        &self,
        id: &str,
        after: i64,
    ) -> Result<BoxStream<'static, Result<Told, BuildError>>, Gone> {
        let path = format!("v1/builds/{id}/events");
        let request = |client: &reqwest::Client| {
            let request = self.request(client, Method::GET, &path);
            request.header("last-event-id", after)
        };
        // Whoever follows tries again.
        let response = self.client.send_once(request).await;
        let response = response.map_err(|error| Gone::Lost(self.lost(&error)))?;
        let passing = response.status().is_server_error();
        let gone = if passing { Gone::Lost } else { Gone::Refused };
        let response = self.checked(response, None).await.map_err(gone)?;
        let events = SseStream::from_bytes_stream(response.bytes_stream());
        let told = events.filter_map(|event| {
            std::future::ready(match event {
                Ok(event) => told(&event).transpose(),
                Err(error) => Some(Err(
                    BuildError::unavailable("the connection broke").caused_by(&error)
                )),
            })
        });
        Ok(told.boxed())
    }

    async fn cancel(&self, id: &str) -> Result<(), BuildError> {
        let path = format!("v1/builds/{id}/cancel");
        self.send(Method::POST, &path, |request| request, None)
            .await
            .map(drop)
    }
}

/// What an event tells; nothing where it is of a later version.
fn told(event: &sse_stream::Sse) -> Result<Option<Told>, BuildError> {
    let wrong = |error: serde_json::Error| {
        BuildError::failed("cannot understand the build service").caused_by(&error)
    };
    let data = event.data.as_deref().unwrap_or_default();
    match event.event.as_deref() {
        Some("build") => {
            let number = event.id.as_deref().and_then(|id| id.parse().ok());
            // An event that is not known here is told by a later version.
            let happened = serde_json::from_str(data).ok();
            Ok(number
                .zip(happened)
                .map(|(number, happened)| Told::Happened(number, happened)))
        }
        Some("end") => {
            let build = serde_json::from_str(data).map_err(wrong)?;
            Ok(Some(Told::Ended(Box::new(build))))
        }
        _ => Ok(None),
    }
}

/// The rest of a file as a body, read on a thread of its own.
fn rest(open: Open<'_>, offset: u64) -> std::io::Result<reqwest::Body> {
    let mut file = open()?;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        let mut read = || -> std::io::Result<()> {
            std::io::copy(&mut file.by_ref().take(offset), &mut std::io::sink())?;
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
                if chunk.is_empty() || sender.blocking_send(Ok(chunk.into())).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            // Nobody sends it any more, then.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(reqwest::Body::wrap_stream(ReceiverStream::new(receiver)))
}
