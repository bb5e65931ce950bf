//! Images: whether one is there.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use imagespec_build_api::{Failure, Found, Wanted};
use imagespec_core::event::Silent;
use imagespec_core::execute::Outcome;
use tokio_util::sync::CancellationToken;

use super::{Caller, Refusal};
use crate::service::Service;
use crate::{vet, worker};

/// Whether an image is there
///
/// Looked for with the credentials of the service. Its files need not be there.
#[utoipa::path(
    post, path = "/v1/images/find", operation_id = "findImage", tag = "images",
    request_body = Wanted,
    responses(
        (status = 200, description = "The image, if it is there", body = Found),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed, or nobody can tell", body = Failure),
    ),
)]
pub(super) async fn find(
    State(service): State<Arc<Service>>,
    caller: Caller,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Found>, Refusal> {
    let Json(mut wanted) = wanted?;
    vet::request(&wanted, service.settings.limits(&caller.project))?;
    wanted.settings.force = false;
    let files = Arc::new(service.files.for_plan(&caller.project, &wanted.plan));
    let cancel = CancellationToken::new();
    let found = worker::pipeline(
        &service,
        &caller.project,
        &wanted,
        files,
        true,
        &Silent,
        &cancel,
    );
    let image = match found.await? {
        Outcome::Done(image) => Some(image),
        Outcome::WouldBuild { .. } => None,
    };
    Ok(Json(Found { image }))
}
