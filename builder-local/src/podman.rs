//! Builds by Podman, which speaks Docker's API and has no `BuildKit`: the context goes there as an archive, and what it
//! says comes back as text.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::BytesMut;
use futures::TryStreamExt as _;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use imagespec_dockerfile::{DOCKERFILE, Log, Status as Happened, Tree, Vertex};
use imagespec_oci::Reference;
use imagespec_oci::credentials::Credential;
use imagespec_oci::engine::Endpoint;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::io::{ReaderStream, SyncIoBridge};
use tonic::Status;

use crate::buildkit::{Offer, Order};

/// Bytes between whoever writes the context and whoever sends it.
const PIPE: usize = 256 << 10;
/// The longest message, in bytes.
const MESSAGE: usize = 1 << 20;
/// Instructions that [`Dockerfile`](imagespec_core::dockerfile::Dockerfile) counts.
const COUNTED: [&str; 5] = ["FROM", "ADD", "COPY", "RUN", "WORKDIR"];

/// What Podman says, one at a time.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    stream: String,
    error: Option<String>,
}

/// Ends a task with whoever waits for it.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Builds the Dockerfile of an offer, starting from `base`. `told` takes what Podman says as `BuildKit` would say it. A
/// future that is dropped hangs up, which cancels the build.
pub(crate) async fn build(
    endpoint: &Endpoint,
    offer: Offer,
    order: &Order,
    base: &str,
    mut told: impl FnMut(Happened),
) -> Result<(), Status> {
    let mut tree = Tree::clone(&offer.tree);
    let secrets = offer.secrets.iter().enumerate();
    let secrets = secrets.map(|(at, (name, content))| {
        // Podman moves it out of the context before it builds, which it can do with what is in no folder.
        let path = format!("imagespec-secret-{at}");
        tree.add(&path, content, false);
        format!("id={name},src={path}")
    });
    let secrets: Vec<_> = secrets.collect();
    let mut request = Request::post(format!("/build?{}", query(order, &secrets)))
        .header(HOST, endpoint.authority())
        .header(CONTENT_TYPE, "application/x-tar");
    if let Some(logins) = logins(&offer, base).await? {
        request = request.header("X-Registry-Config", logins);
    }
    let (reader, writer) = tokio::io::duplex(PIPE);
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        // Podman says that an archive is not whole; a reader that is gone has said why before.
        let _ = tree.write(&handle, SyncIoBridge::new(writer));
    });
    let frames = ReaderStream::with_capacity(reader, PIPE).map_ok(Frame::data);
    let request = request.body(StreamBody::new(frames));
    let request = request.map_err(|error| Status::invalid_argument(error.to_string()))?;

    let lost = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
    let stream = endpoint.connect().await.map_err(|error| lost(&error))?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| lost(&error))?;
    let _ends = Ends(tokio::spawn(connection).abort_handle());
    let sent = sender.send_request(request).await;
    let response = sent.map_err(|error| lost(&error))?;
    let code = response.status();
    if code != StatusCode::OK {
        let body = Limited::new(response.into_body(), MESSAGE).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes);
        let said = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
        return Err(Status::unknown(format!("{code}: {}", said.trim())));
    }
    let mut body = response.into_body();
    let (mut steps, mut rest) = (Steps::default(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| lost(&error))?;
        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end + 1);
            let said: Said = serde_json::from_slice(&line).unwrap_or_default();
            if let Some(error) = said.error {
                told(steps.failed(&error));
                return Err(Status::unknown(error.trim().to_owned()));
            }
            told(steps.take(&said.stream));
        }
        if rest.len() > MESSAGE {
            return Err(Status::internal("a message of Podman's is too long"));
        }
    }
    if steps.is_complete() {
        Ok(())
    } else {
        Err(Status::unavailable("Podman hung up"))
    }
}

/// The order, in the words of Docker's API.
fn query(order: &Order, secrets: &[String]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("dockerfile", DOCKERFILE);
    let names = order.exporter.1.get("name").map_or("", String::as_str);
    for name in names.split(',') {
        query.append_pair("t", name);
    }
    let (mut labels, mut arguments) = (HashMap::new(), HashMap::new());
    for (option, value) in &order.options {
        match option.as_str() {
            "platform" => drop(query.append_pair("platform", value)),
            "image-resolve-mode" => drop(query.append_pair("pull", "1")),
            "no-cache" => drop(query.append_pair("nocache", "1")),
            "force-network-mode" => drop(query.append_pair("networkmode", value)),
            option => {
                if let Some(label) = option.strip_prefix("label:") {
                    labels.insert(label, value);
                } else if let Some(argument) = option.strip_prefix("build-arg:") {
                    arguments.insert(argument, value);
                }
            }
        }
    }
    for (name, value) in [
        ("labels", json!(labels)),
        ("buildargs", json!(arguments)),
        ("secrets", json!(secrets)),
    ] {
        query.append_pair(name, &value.to_string());
    }
    query.append_pair("identitylabel", "0");
    query.append_pair("layers", "1").finish()
}

/// What a registry is told of whoever pulls the base, if it is told anything.
async fn logins(offer: &Offer, base: &str) -> Result<Option<String>, Status> {
    let Ok(base) = base.parse::<Reference>() else {
        return Ok(None);
    };
    let found = offer.credentials.find(&base.registry, &base.repository);
    let found = found.await;
    let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
    let login = match found {
        Some(Credential::Basic { username, password }) => {
            json!({ "username": username, "password": password.expose() })
        }
        Some(Credential::IdentityToken(token)) => json!({ "identitytoken": token.expose() }),
        Some(Credential::RegistryToken(token)) => json!({ "registrytoken": token.expose() }),
        None => return Ok(None),
    };
    let logins = json!({ base.registry: login }).to_string();
    Ok(Some(URL_SAFE.encode(logins)))
}

/// The steps that Podman tells of.
#[derive(Debug, Default)]
struct Steps {
    counted: usize,
    current: Option<Vertex>,
    has_name: bool,
}

impl Steps {
    /// Whether Podman has said that it is done.
    const fn is_complete(&self) -> bool {
        self.has_name
    }

    fn take(&mut self, said: &str) -> Happened {
        let mut status = Happened::default();
        if let Some(step) = said.strip_prefix("STEP ") {
            status.vertexes.extend(self.end(""));
            let (_, instruction) = step.split_once(": ").unwrap_or_default();
            let keyword = instruction.split_whitespace().next().unwrap_or_default();
            if COUNTED.contains(&keyword) {
                self.counted += 1;
                let name = format!("[{0}/{0}] {1}", self.counted, instruction.trim_end());
                let vertex = Vertex {
                    digest: name.clone(),
                    name,
                    started: true,
                    ..Vertex::default()
                };
                status.vertexes.push(vertex.clone());
                self.current = Some(vertex);
            }
        } else if said.starts_with("--> ") {
            if let Some(vertex) = &mut self.current {
                vertex.cached = said.starts_with("--> Using cache");
            }
            status.vertexes.extend(self.end(""));
        } else if said.starts_with("COMMIT") {
            status.vertexes.extend(self.end(""));
        } else if said.starts_with("Successfully tagged") {
            self.has_name = true;
        } else if let Some(vertex) = &self.current {
            status.logs.push(Log {
                vertex: vertex.digest.clone(),
                bytes: said.as_bytes().to_vec(),
            });
        }
        status
    }

    fn failed(&mut self, error: &str) -> Happened {
        let error = error.trim().replace("exit status ", "exit code: ");
        Happened {
            vertexes: self.end(&error).into_iter().collect(),
            ..Happened::default()
        }
    }

    fn end(&mut self, error: &str) -> Option<Vertex> {
        let mut vertex = self.current.take()?;
        vertex.completed = true;
        error.clone_into(&mut vertex.error);
        Some(vertex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_as_buildkit_counts_them() {
        let mut steps = Steps::default();
        let from = steps.take("STEP 1/4: FROM x\n");
        assert_eq!(from.vertexes[0].name, "[1/1] FROM x");
        let user = steps.take("STEP 2/4: USER 0:0\n");
        assert!(user.vertexes[0].completed);
        assert!(steps.take("--> 0123\n").vertexes.is_empty());
        steps.take("STEP 3/4: RUN false\n");
        assert_eq!(steps.take("half").logs[0].vertex, "[2/2] RUN false");
        let cached = steps.take("--> Using cache 0123\n");
        assert!(cached.vertexes[0].cached);
        steps.take("STEP 4/4: RUN false\n");
        let failed = steps.failed("while running runtime: exit status 3\n");
        assert!(failed.vertexes[0].error.ends_with("exit code: 3"));
        assert!(!steps.is_complete());
        steps.take("Successfully tagged docker.io/library/x:1\n");
        assert!(steps.is_complete());
    }

    #[test]
    fn an_order_is_a_query_without_a_secret() {
        let order = Order {
            options: HashMap::from([
                ("label:team".to_owned(), "m l".to_owned()),
                ("no-cache".to_owned(), String::new()),
            ]),
            entitlements: Vec::new(),
            exporter: (
                "moby",
                HashMap::from([("name".to_owned(), "a:1,a:2".to_owned())]),
            ),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
        };
        let query = query(&order, &["id=x,src=imagespec-secret-0".to_owned()]);
        for part in [
            "dockerfile=Dockerfile&t=a%3A1&t=a%3A2&",
            "nocache=1",
            "labels=%7B%22team%22%3A%22m+l%22%7D",
            "secrets=%5B%22id%3Dx%2Csrc%3Dimagespec-secret-0%22%5D",
        ] {
            assert!(query.contains(part), "{part}: {query}");
        }
    }
}
