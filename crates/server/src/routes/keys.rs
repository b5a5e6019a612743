//! Keys. Each call acts with the scopes of its caller: nobody makes, replaces or ends a key that may do more.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use byzerllm_runtime::{KeyInfo, NewKey, Scopes};

use super::blocking;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::keys::{CreateKeyBody, RevokeKeyAnswer, RotateKeyBody};

/// `GET /byzerllm/v1/keys`.
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vec<KeyInfo>> {
    Json(state.runtime.keys().list())
}

/// `POST /byzerllm/v1/keys`.
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateKeyBody>,
) -> Result<Response, ApiError> {
    let scopes = body.scopes.map_or_else(Scopes::inference, |scopes| scopes.0.into_iter().collect());
    let life = body.expires_seconds.map(Duration::from_secs);
    let keys = state.runtime.keys().clone();
    let made = blocking(move || keys.create(caller.scopes(), &body.name, &scopes, life)).await?;
    tracing::info!(key = %made.info.name, id = %made.info.id, scopes = %made.info.scopes, "a key was made");
    Ok(once(made))
}

/// `POST /byzerllm/v1/keys/{name}/rotate`.
pub(crate) async fn rotate(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<RotateKeyBody>,
) -> Result<Response, ApiError> {
    let grace = Duration::from_secs(body.grace_seconds);
    let keys = state.runtime.keys().clone();
    let made = blocking(move || keys.rotate(caller.scopes(), &name, grace)).await?;
    tracing::info!(key = %made.info.name, id = %made.info.id, "a key was rotated");
    Ok(once(made))
}

/// `DELETE /byzerllm/v1/keys/{name}`.
pub(crate) async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<RevokeKeyAnswer>, ApiError> {
    let keys = state.runtime.keys().clone();
    let gone = blocking(move || keys.revoke(caller.scopes(), &name)).await?;
    tracing::info!(key = %gone.name, id = %gone.id, "a key was revoked");
    Ok(Json(RevokeKeyAnswer { name: gone.name, revoked: true }))
}

/// A secret is seen once: nothing on the way may keep the answer.
fn once(made: NewKey) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(made)).into_response()
}
