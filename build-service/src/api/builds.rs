//! Builds: ask for one, see what becomes of it, stop it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures::TryStreamExt as _;
use imagespec_build_api::{Accepted, Build, Builds, Failure, Files, Scope, Wanted};
use imagespec_core::error::BuildError;
use imagespec_core::event::BuildEvent;

use super::{Caller, Refusal, events};
use crate::service::Service;
use crate::{builds, files, vet};

/// Asks for a build
///
/// An equal request of the same project that is not done yet, or was a minute ago, is the same build. Its files have to
/// be there before; those that are not are named in an answer with status 409.
#[utoipa::path(
    post, path = "/v1/builds", operation_id = "submitBuild", tag = "builds",
    request_body = Wanted,
    responses(
        (status = 201, description = "A build was taken on", body = Accepted),
        (status = 200, description = "Somebody asked for the same before", body = Accepted),
        (status = 409, description = "Files of the context are not there", body = Files),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn submit(
    State(service): State<Arc<Service>>,
    caller: Caller,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Response, Refusal> {
    caller.needs(Scope::Build)?;
    let Json(wanted) = wanted?;
    let limits = service.settings.limits(&caller.project);
    vet::request(&wanted, limits)?;
    let (files, bytes) = files::Files::of(&wanted.plan);
    if bytes > limits.context_bytes {
        let message = format!(
            "the build context has {bytes} bytes, and the project's may have {}",
            limits.context_bytes
        );
        let error = BuildError::input(message)
            .hint("`.dockerignore` or `.imagespecignore` leaves out what the image does not need");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    let lacking = service.files.missing(&caller.project, files).await?;
    if !lacking.is_empty() {
        let lacking = Json(Files { files: lacking });
        return Ok((StatusCode::CONFLICT, lacking).into_response());
    }
    let accepted = accept(&service, &caller, &wanted).await?;
    Ok(answer(accepted))
}

fn answer(accepted: Accepted) -> Response {
    let status = if accepted.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    (status, Json(accepted)).into_response()
}

async fn accept(service: &Service, caller: &Caller, wanted: &Wanted) -> Result<Accepted, Refusal> {
    let (project, who) = (&caller.project, &caller.token.name);
    let queued = service.settings.limits(project).queued;
    let accepted = builds::accept(&service.database, project, who, wanted, queued).await?;
    let accepted = accepted.ok_or_else(|| {
        let message = format!("{queued} builds of the project wait, and no more may");
        let error = BuildError::unavailable(message).hint("ask again when some are done");
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, error)
    })?;
    service.work.notify_one();
    Ok(accepted)
}

/// Lists builds, newest first
#[utoipa::path(
    get, path = "/v1/builds", operation_id = "listBuilds", tag = "builds",
    params(builds::Query),
    responses(
        (status = 200, description = "Builds of the project", body = Builds),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    caller: Caller,
    query: Result<Query<builds::Query>, QueryRejection>,
) -> Result<Json<Builds>, Refusal> {
    let Query(query) = query?;
    let listed = builds::list(&service.database, &caller.project, &query).await?;
    Ok(Json(listed))
}

/// The build of an id, where it is one of the caller's project.
pub(super) async fn found(service: &Service, caller: &Caller, id: &str) -> Result<Build, Refusal> {
    let found = builds::find(&service.database, &caller.project, id).await?;
    found.ok_or_else(absent)
}

fn absent() -> Refusal {
    Refusal::absent("there is no such build")
}

/// Shows a build
#[utoipa::path(
    get, path = "/v1/builds/{id}", operation_id = "showBuild", tag = "builds",
    params(("id" = String, Path, description = "The build")),
    responses(
        (status = 200, description = "The build", body = Build),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn show(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Build>, Refusal> {
    found(&service, &caller, &id).await.map(Json)
}

/// Stops a build
///
/// One that waits ends at once, one that runs a moment later. One that ended stays as it is.
#[utoipa::path(
    post, path = "/v1/builds/{id}/cancel", operation_id = "cancelBuild", tag = "builds",
    params(("id" = String, Path, description = "The build")),
    responses(
        (status = 202, description = "It is going to end", body = Build),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Build>), Refusal> {
    let build = stop(&service, &caller, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(build)))
}

/// Stops a build of the caller's project.
pub(crate) async fn stop(service: &Service, caller: &Caller, id: &str) -> Result<Build, Refusal> {
    caller.needs(Scope::Build)?;
    if !builds::stop(&service.database, &caller.project, id).await? {
        return Err(absent());
    }
    service.happened(id);
    found(service, caller, id).await
}

/// Asks for the same once more
#[utoipa::path(
    post, path = "/v1/builds/{id}/retry", operation_id = "retryBuild", tag = "builds",
    params(("id" = String, Path, description = "The build")),
    responses(
        (status = 201, description = "A build was taken on", body = Accepted),
        (status = 200, description = "Somebody asked for the same before", body = Accepted),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn retry(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    again(&service, &caller, &id).await.map(answer)
}

/// Asks for the same as a build once more.
pub(crate) async fn again(
    service: &Service,
    caller: &Caller,
    id: &str,
) -> Result<Accepted, Refusal> {
    caller.needs(Scope::Build)?;
    let wanted = builds::wanted(&service.database, &caller.project, id).await?;
    let wanted = wanted.ok_or_else(absent)?;
    // What the project may do is as it is now.
    vet::request(&wanted, service.settings.limits(&caller.project))?;
    accept(service, caller, &wanted).await
}

/// What the commands of a build printed
#[utoipa::path(
    get, path = "/v1/builds/{id}/log", operation_id = "showLog", tag = "builds",
    params(("id" = String, Path, description = "The build")),
    responses(
        (status = 200, description = "Lines, each after its step", body = String, content_type = "text/plain"),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn log(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let build = found(&service, &caller, &id).await?;
    let lines = events::so_far(service, build.id).map_ok(|(_, happened)| match happened.event {
        BuildEvent::Log { step, line } => format!("{step}: {line}\n"),
        _ => String::new(),
    });
    let body = Body::from_stream(lines);
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}
