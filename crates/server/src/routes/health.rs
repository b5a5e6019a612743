//! `GET /healthz`, `GET /readyz`, and what Byzer-LLM's own server calls them: `GET /health` and `GET /version`.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::error::ApiError;
use crate::limits;
use crate::state::AppState;
use crate::wire::health::{HealthAnswer, VersionAnswer};

/// The process is alive.
pub(crate) async fn alive() -> Json<HealthAnswer> {
    Json(HealthAnswer { status: "alive" })
}

/// Every model that is ready makes progress.
pub(crate) async fn ready(State(state): State<AppState>) -> Result<Json<HealthAnswer>, ApiError> {
    let outcome = state.runtime.ready(Instant::now() + limits::READY).await;
    // Whatever the reason, to who asks it means "not now".
    outcome.map_err(|error| ApiError { status: StatusCode::SERVICE_UNAVAILABLE, ..ApiError::from(error) })?;
    Ok(Json(HealthAnswer { status: "ready" }))
}

/// The process is alive; nothing more to say.
pub(crate) async fn healthy() -> StatusCode {
    StatusCode::OK
}

/// The version of this server.
pub(crate) async fn version() -> Json<VersionAnswer> {
    Json(VersionAnswer { version: env!("CARGO_PKG_VERSION") })
}
