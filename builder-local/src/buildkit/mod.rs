//! `BuildKit` in an engine: its control service over one connection, a session of this machine over another.

mod connection;
mod files;
mod session;

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, SolveRequest, StatusRequest, StatusResponse,
};
use imagespec_oci::engine::Endpoint;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) use session::Offer;
use session::Session;

/// The largest message, in bytes: that of `BuildKit`.
const MESSAGE: usize = 16 << 20;

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

/// Builds a Dockerfile of the offered context. `told` takes the status as the engine sends it. A future that is dropped
/// cancels the build in the engine.
pub(crate) async fn solve(
    endpoint: &Endpoint,
    offer: Offer,
    order: Order,
    mut told: impl FnMut(StatusResponse),
) -> Result<HashMap<String, String>, Status> {
    let unreachable = |error: std::io::Error| Status::unavailable(error.to_string());
    let session = Session::open(endpoint, identifier(), offer);
    let session = session.await.map_err(unreachable)?;
    let mut control = control(endpoint).await?;
    let reference = identifier();
    let (exporter, attributes) = order.exporter;
    let request = SolveRequest {
        r#ref: reference.clone(),
        exporter_deprecated: exporter.to_owned(),
        exporter_attrs_deprecated: attributes,
        session: session.id.clone(),
        entitlements: order.entitlements,
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: order.options,
        cache: Some(CacheOptions {
            exports: order.cache_to,
            imports: order.cache_from,
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
            told(status);
        }
    };
    // The last of the status comes after the answer.
    let (answer, ()) = tokio::join!(answer, watched);
    drop(session);
    Ok(answer?.into_inner().exporter_response)
}

async fn control(endpoint: &Endpoint) -> Result<ControlClient<Channel>, Status> {
    let connection = connection::upgraded(endpoint, "/grpc", &[])
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut connection = Some(connection);
    let connector = tower::service_fn(move |_| {
        let connection = connection.take();
        // One build, one connection: one that broke is not made again.
        async { connection.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let channel = tonic::transport::Endpoint::from_static("http://engine")
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(ControlClient::new(channel)
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE))
}

fn identifier() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}
