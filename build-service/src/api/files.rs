//! Files of build contexts: what is missing, and its upload.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use imagespec_build_api::{ASKED, Failure, Files, OFFSET_HEADER, Scope};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;

use super::{Caller, Refusal};
use crate::files::Refused;
use crate::service::Service;

/// Which files are not there
///
/// Those that are stay for some days.
#[utoipa::path(
    post, path = "/v1/files/missing", operation_id = "missingFiles", tag = "files",
    request_body = Files,
    responses(
        (status = 200, description = "Those that are not there", body = Files),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn missing(
    State(service): State<Arc<Service>>,
    caller: Caller,
    files: Result<Json<Files>, JsonRejection>,
) -> Result<Json<Files>, Refusal> {
    caller.needs(Scope::Build)?;
    let Json(Files { files }) = files?;
    if files.len() > ASKED {
        let message = format!("at most {ASKED} files may be asked about at once");
        return Err(BuildError::input(message).into());
    }
    let files = service.files.missing(&caller.project, files).await?;
    Ok(Json(Files { files }))
}

/// Uploads many small files
///
/// An archive in tar's format, uncompressed, of at most 16 MiB. Its entries are named by their SHA-256 digests in
/// hexadecimal, and have at most 256 KiB each.
#[utoipa::path(
    post, path = "/v1/files", operation_id = "uploadFiles", tag = "files",
    request_body(content = inline(Vec<u8>), content_type = "application/x-tar"),
    responses(
        (status = 204, description = "All were taken"),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn pack(
    State(service): State<Arc<Service>>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, Refusal> {
    caller.needs(Scope::Build)?;
    let body = body.into_data_stream();
    let taken = service.files.take_pack(&caller.project, body).await;
    taken.map(|()| StatusCode::NO_CONTENT).map_err(refusal)
}

/// Whether a file is there
///
/// Where an upload was broken off, `upload-offset` says with which byte it goes on.
#[utoipa::path(
    head, path = "/v1/files/{digest}", operation_id = "showFile", tag = "files",
    params(("digest" = String, Path, description = "Digest of its content", pattern = "^sha256:[0-9a-f]{64}$")),
    responses(
        (status = 204, description = "It is there"),
        (status = 404, description = "It is not"),
        (status = "4XX", description = "Refused"),
        (status = "5XX", description = "Failed"),
    ),
)]
pub(super) async fn offset(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<Response, Refusal> {
    caller.needs(Scope::Build)?;
    let digest = parsed(&digest)?;
    let missing = service.files.missing(&caller.project, vec![digest]).await?;
    if missing.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let offset = service.files.offset(&caller.project, &digest);
    Ok(from(StatusCode::NOT_FOUND, offset))
}

/// Uploads a file, or the rest of one
///
/// With `upload-offset` the body goes on with that byte, which has to be the one after the last that came.
#[utoipa::path(
    put, path = "/v1/files/{digest}", operation_id = "uploadFile", tag = "files",
    params(
        ("digest" = String, Path, description = "Digest of its content", pattern = "^sha256:[0-9a-f]{64}$"),
        ("upload-offset" = Option<u64>, Header, description = "The byte that the body goes on with"),
    ),
    request_body(content = inline(Vec<u8>), content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "It was taken"),
        (status = 409, description = "It goes on elsewhere: `upload-offset` says where"),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn upload(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(digest): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    caller.needs(Scope::Build)?;
    let digest = parsed(&digest)?;
    let project = &caller.project;
    let limit = service.settings.limits(project).context_bytes;
    let offset = match headers.get(OFFSET_HEADER) {
        None => 0,
        Some(offset) => {
            let offset = offset.to_str().ok().and_then(|text| text.parse().ok());
            let message = format!("`{OFFSET_HEADER}` is no number of bytes");
            offset
                .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, BuildError::input(message)))?
        }
    };
    let body = body.into_data_stream();
    match service
        .files
        .take(project, &digest, offset, limit, body)
        .await
    {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(Refused::Elsewhere(offset)) => Ok(from(StatusCode::CONFLICT, offset)),
        Err(refused) => Err(refusal(refused)),
    }
}

fn from(status: StatusCode, offset: u64) -> Response {
    let name = HeaderName::from_static(OFFSET_HEADER);
    (status, [(name, HeaderValue::from(offset))]).into_response()
}

fn parsed(digest: &str) -> Result<Digest, Refusal> {
    digest.parse().map_err(|_| {
        let message = format!("expected a digest such as `sha256:…`: `{digest}`");
        Refusal::new(StatusCode::BAD_REQUEST, BuildError::input(message))
    })
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::Wrong(message) => {
            Refusal::new(StatusCode::BAD_REQUEST, BuildError::input(message))
        }
        Refused::TooLarge(limit) => {
            let message = format!("the upload has more than {limit} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, BuildError::input(message))
        }
        Refused::Elsewhere(_) => {
            let error = BuildError::input("the upload goes on elsewhere");
            Refusal::new(StatusCode::CONFLICT, error)
        }
        Refused::Io(error) => BuildError::unavailable("the build service cannot keep the file")
            .caused_by(&error)
            .into(),
    }
}
