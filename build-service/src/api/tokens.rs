//! Tokens: who may ask for what.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use imagespec_build_api::{Failure, MadeToken, NewToken, Scope, Tokens};
use imagespec_core::error::BuildError;

use super::{Caller, Refusal};
use crate::service::Service;
use crate::tokens;

/// The longest name of a token.
const NAME: usize = 100;

/// Lists tokens
#[utoipa::path(
    get, path = "/v1/tokens", operation_id = "listTokens", tag = "tokens",
    responses(
        (status = 200, description = "Those of the project, or of all", body = Tokens),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    caller: Caller,
) -> Result<Json<Tokens>, Refusal> {
    caller.needs(Scope::Admin)?;
    let tokens = tokens::list(&service.database, &caller.token.project).await?;
    Ok(Json(Tokens { tokens }))
}

/// Makes a token
///
/// Its secret is in the answer, and nowhere else. A token that is for all projects makes tokens for any, others for
/// their own.
#[utoipa::path(
    post, path = "/v1/tokens", operation_id = "makeToken", tag = "tokens",
    request_body = NewToken,
    responses(
        (status = 201, description = "The token with its secret", body = MadeToken),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn make(
    State(service): State<Arc<Service>>,
    caller: Caller,
    new: Result<Json<NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<MadeToken>), Refusal> {
    caller.needs(Scope::Admin)?;
    let Json(new) = new?;
    if new.name.trim().is_empty() || new.name.len() > NAME || new.name.contains(char::is_control) {
        let message = format!("expected a name of at most {NAME} letters: `{}`", new.name);
        return Err(BuildError::input(message).field("name").into());
    }
    let every = caller.token.project == tokens::EVERY_PROJECT;
    let project = new
        .project
        .clone()
        .unwrap_or_else(|| caller.project.clone());
    if !(every && project == tokens::EVERY_PROJECT || tokens::is_project(&project)) {
        let message = format!("expected a project of small letters, digits and `-`: `{project}`");
        return Err(BuildError::input(message).field("project").into());
    }
    if !every && project != caller.token.project {
        return Err(Refusal::forbidden("the token is for another project"));
    }
    let made = tokens::make(&service.database, new, project).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Revokes a token
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", operation_id = "revokeToken", tag = "tokens",
    params(("id" = String, Path, description = "The token")),
    responses(
        (status = 204, description = "It is known no more"),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn revoke(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    caller.needs(Scope::Admin)?;
    if tokens::revoke(&service.database, &caller.token.project, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::absent("there is no such token"))
    }
}
