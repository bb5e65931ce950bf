//! The service itself: which it is, and how it does.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use imagespec_build_api::{Failure, VERSION, Version};
use imagespec_core::builder::Capability;

use super::{Caller, Refusal};
use crate::builds;
use crate::service::Service;

/// The format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Which service it is
#[utoipa::path(
    get, path = "/v1/version", operation_id = "showVersion", tag = "service",
    responses(
        (status = 200, description = "Its versions, and what its builder can do for the project", body = Version),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn version(
    State(service): State<Arc<Service>>,
    caller: Caller,
) -> Result<Json<Version>, Refusal> {
    let builder = &service.builders(&caller.project).builder.builder;
    Ok(Json(Version {
        oldest: VERSION,
        newest: VERSION,
        service: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: builder
            .capabilities()
            .into_iter()
            .map(Capability::name)
            .collect(),
    }))
}

/// Whether the service runs
#[utoipa::path(
    get, path = "/healthz", operation_id = "health", tag = "service", security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether the service can work
#[utoipa::path(
    get, path = "/readyz", operation_id = "readiness", tag = "service", security(()),
    responses(
        (status = 200, description = "It can", body = String, content_type = "text/plain"),
        (status = 503, description = "Its database does not answer, or it ends", body = String, content_type = "text/plain"),
    ),
)]
pub(super) async fn readiness(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    if !service.ending.is_cancelled() && service.database.is_ready().await {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Figures for Prometheus
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "service", security(()),
    responses(
        (status = 200, description = "Figures", body = String, content_type = "text/plain"),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, Refusal> {
    let figures = builds::figures(&service.database).await?;
    let mut text = String::new();
    // A text takes whatever is written.
    let _ = writeln!(
        text,
        "# HELP imagespec_builds Builds that are kept, by state.\n# TYPE imagespec_builds gauge"
    );
    for state in &figures.states {
        let _ = writeln!(
            text,
            "imagespec_builds{{state=\"{}\"}} {}",
            state.name, state.builds
        );
    }
    let _ = writeln!(
        text,
        "# HELP imagespec_build_seconds How long builds took, from the first worker to their end.\n# TYPE imagespec_build_seconds summary"
    );
    for state in figures.states.iter().filter(|state| state.is_final()) {
        let name = state.name;
        let _ = writeln!(
            text,
            "imagespec_build_seconds_sum{{state=\"{name}\"}} {}",
            state.seconds
        );
        let _ = writeln!(
            text,
            "imagespec_build_seconds_count{{state=\"{name}\"}} {}",
            state.builds
        );
    }
    for (name, help, value) in [
        (
            "imagespec_queue_seconds",
            "How long the oldest build waits.",
            figures.oldest,
        ),
        (
            "imagespec_workers",
            "Builds that this service does at once.",
            service.settings.workers.to_string(),
        ),
    ] {
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        );
    }
    Ok(([(CONTENT_TYPE, METRICS)], text).into_response())
}
