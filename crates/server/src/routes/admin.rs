//! Deployments. A change goes on when its client leaves: the runtime sees to that.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use byzerllm_core::Error;
use byzerllm_runtime::{DeploymentSpec, DeploymentStatus, Inspection};
use serde::Deserialize;

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::limits;
use crate::state::AppState;
use crate::wire::native::{InspectBody, UndeployAnswer};

/// `GET /byzerllm/v1/deployments`.
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vec<DeploymentStatus>> {
    Json(state.runtime.list())
}

/// `GET /byzerllm/v1/deployments/{name}`.
pub(crate) async fn status(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<DeploymentStatus>, ApiError> {
    Ok(Json(state.runtime.status(&name)?))
}

/// `POST /byzerllm/v1/deployments`.
pub(crate) async fn deploy(
    State(state): State<AppState>,
    JsonBody(spec): JsonBody<DeploymentSpec>,
) -> Result<Json<DeploymentStatus>, ApiError> {
    Ok(Json(state.runtime.deploy(spec).await?))
}

/// The query of an undeploy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    drain_seconds: Option<u64>,
}

/// `DELETE /byzerllm/v1/deployments/{name}`.
pub(crate) async fn undeploy(
    State(state): State<AppState>,
    Path(name): Path<String>,
    drain: Result<Query<Drain>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<UndeployAnswer>, ApiError> {
    let max = limits::DRAIN_SECONDS;
    let seconds = match drain {
        Ok(Query(drain)) => drain.drain_seconds.unwrap_or(30),
        Err(_) => u64::MAX,
    };
    if seconds > max {
        let message =
            format!("the query may hold `drain_seconds`, a whole number from 0 to {max}, and nothing else");
        return Err(Error::invalid("drain_seconds", message).into());
    }
    state.runtime.undeploy(&name, Duration::from_secs(seconds)).await?;
    Ok(Json(UndeployAnswer { name, deleted: true }))
}

/// `POST /byzerllm/v1/inspect`.
pub(crate) async fn inspect(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<InspectBody>,
) -> Result<Json<Inspection>, ApiError> {
    Ok(Json(state.runtime.inspect(&body.path).await?))
}
