//! `BuildKit`, in an engine or as a daemon of its own: its control service, and a session of this machine.

mod connection;
mod content;
mod files;
mod sent;
mod session;
mod written;

use std::collections::HashMap;
use std::error::Error;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, InfoRequest, ListWorkersRequest, SolveRequest, StatusRequest,
    StatusResponse,
};
use hyper_util::rt::TokioIo;
use imagespec_dockerfile::{Log, Moved, Status as Happened, Vertex};
use imagespec_oci::engine::Endpoint;
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use content::Lent;
pub(crate) use sent::way;
pub(crate) use session::Offer;
use session::Session;

/// The largest message, in bytes: that of `BuildKit`.
const MESSAGE: usize = 16 << 20;

/// Where `BuildKit` is.
#[derive(Debug, Clone)]
pub(crate) enum Buildkit {
    /// In a container engine, which turns a connection of its own into one of `BuildKit`'s.
    Engine(Endpoint),
    /// At an address of its own.
    Daemon(Endpoint),
}

/// What is to be built.
#[derive(Debug)]
pub(crate) struct Order {
    /// Options of the frontend: `platform`, `label:NAME`, `build-arg:NAME`, …
    pub(crate) options: HashMap<String, String>,
    /// What the build may do that others may not: `network.host`.
    pub(crate) entitlements: Vec<String>,
    /// What becomes of the result, and how.
    pub(crate) exporter: (&'static str, HashMap<String, String>),
    /// Where layers may come from that the engine does not have.
    pub(crate) cache_from: Vec<CacheOptionsEntry>,
    /// Where layers go for others.
    pub(crate) cache_to: Vec<CacheOptionsEntry>,
}

/// Builds a Dockerfile of the offered context. `told` takes the status as it is sent. A future that is dropped cancels
/// the build.
pub(crate) async fn solve(
    buildkit: &Buildkit,
    offer: Offer,
    order: Order,
    mut told: impl FnMut(Happened),
) -> Result<HashMap<String, String>, Status> {
    let unreachable = |error: std::io::Error| Status::unavailable(error.to_string());
    let mut control = control(buildkit).await?;
    let session = match buildkit {
        Buildkit::Engine(endpoint) => Session::in_engine(endpoint, identifier(), offer)
            .await
            .map_err(unreachable)?,
        Buildkit::Daemon(_) => Session::in_daemon(control.clone(), identifier(), offer),
    };
    let reference = identifier();
    let (exporter, attributes) = order.exporter;
    let mut options = order.options;
    if !order.cache_from.is_empty() {
        // The frontend imports them, and is told so in JSON.
        let entry =
            |entry: &CacheOptionsEntry| json!({ "Type": entry.r#type, "Attrs": entry.attrs });
        let imports: Vec<_> = order.cache_from.iter().map(entry).collect();
        options.insert("cache-imports".to_owned(), json!(imports).to_string());
    }
    let request = SolveRequest {
        r#ref: reference.clone(),
        exporter_deprecated: exporter.to_owned(),
        exporter_attrs_deprecated: attributes,
        session: session.id.clone(),
        entitlements: order.entitlements,
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: options,
        cache: Some(CacheOptions {
            exports: order.cache_to,
            ..CacheOptions::default()
        }),
        ..SolveRequest::default()
    };
    let mut solver = control.clone();
    let answer = async move { solver.solve(request).await };
    let watched = async {
        let request = StatusRequest { r#ref: reference };
        // Nobody depends on it: the answer says whether it went well.
        let Ok(stream) = control.status(request).await else {
            return;
        };
        let mut stream = stream.into_inner();
        while let Ok(Some(status)) = stream.message().await {
            told(happened(status));
        }
    };
    // The last of the status comes after the answer.
    let (answer, ()) = tokio::join!(answer, watched);
    drop(session);
    Ok(answer?.into_inner().exporter_response)
}

/// A status in words that are not the wire's.
fn happened(status: StatusResponse) -> Happened {
    let number = |n: i64| u64::try_from(n).unwrap_or_default();
    let vertexes = status.vertexes.into_iter().map(|vertex| Vertex {
        digest: vertex.digest,
        name: vertex.name,
        started: vertex.started.is_some(),
        completed: vertex.completed.is_some(),
        cached: vertex.cached,
        error: vertex.error,
    });
    let moved = status.statuses.into_iter().map(|moved| Moved {
        id: moved.id,
        vertex: moved.vertex,
        current: number(moved.current),
        total: number(moved.total),
    });
    let logs = status.logs.into_iter().map(|log| Log {
        vertex: log.vertex,
        bytes: log.msg,
    });
    Happened {
        vertexes: vertexes.collect(),
        moved: moved.collect(),
        logs: logs.collect(),
    }
}

/// The version of a daemon. Those before 0.11 do not tell, and cannot start from an image that is lent.
pub(crate) async fn version(daemon: &Endpoint) -> Result<String, Status> {
    let mut control = control(&Buildkit::Daemon(daemon.clone())).await?;
    match control.info(InfoRequest {}).await {
        Ok(info) => {
            let version = info.into_inner().buildkit_version;
            Ok(version.map(|version| version.version).unwrap_or_default())
        }
        Err(status) if status.code() == Code::Unimplemented => {
            Err(Status::unimplemented("BuildKit is older than 0.11"))
        }
        Err(status) => Err(Status::new(status.code(), innermost(&status))),
    }
}

/// What an error comes from: the outer ones say no more than that there was one.
fn innermost(error: &dyn Error) -> String {
    let Some(mut cause) = error.source() else {
        return error.to_string();
    };
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

async fn control(buildkit: &Buildkit) -> Result<ControlClient<Channel>, Status> {
    let lost = |error: &dyn Error| Status::unavailable(innermost(error));
    let address = tonic::transport::Endpoint::from_static("http://buildkit");
    let channel = match buildkit {
        Buildkit::Engine(endpoint) => {
            let connection = connection::upgraded(endpoint, "/grpc", &[])
                .await
                .map_err(|error| lost(&error))?;
            let mut connection = Some(connection);
            let connector = tower::service_fn(move |_| {
                let connection = connection.take();
                // One build, one connection: one that broke is not made again.
                async { connection.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
            });
            address.connect_with_connector(connector).await
        }
        Buildkit::Daemon(endpoint) => {
            let endpoint = endpoint.clone();
            let connector = tower::service_fn(move |_| {
                let endpoint = endpoint.clone();
                async move { endpoint.connect_for(&["h2"]).await.map(TokioIo::new) }
            });
            address.connect_with_connector(connector).await
        }
    };
    let channel = channel.map_err(|error| lost(&error))?;
    Ok(ControlClient::new(channel)
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE))
}

/// The platforms whose programs whoever builds can run, its own and those that are emulated, as OS, architecture and
/// variant.
pub(crate) async fn platforms(
    buildkit: &Buildkit,
) -> Result<Vec<(String, String, String)>, Status> {
    let mut control = control(buildkit).await?;
    let workers = control.list_workers(ListWorkersRequest::default()).await?;
    let workers = workers.into_inner().record;
    let platforms = workers.into_iter().flat_map(|worker| worker.platforms);
    let named = platforms.map(|platform| (platform.os, platform.architecture, platform.variant));
    Ok(named.collect())
}

fn identifier() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}
