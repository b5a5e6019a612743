//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use byzerllm_runtime::{DeploymentState, split_model};

use crate::caller::Caller;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::models::{Model, ModelList};

/// The deployments that take requests of this caller.
pub(crate) async fn list(State(state): State<AppState>, caller: Caller) -> Json<ModelList> {
    let ready = |status: &byzerllm_runtime::DeploymentStatus| {
        matches!(status.state, DeploymentState::Ready) && caller.may_ask(&status.spec.name)
    };
    let data = state.runtime.list().into_iter().filter(ready).flat_map(Model::with_adapters).collect();
    Json(ModelList { object: "list", data })
}

/// One of them.
pub(crate) async fn get(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    // The handle says why a model that exists does not answer.
    state.runtime.model(&id)?;
    let (deployment, adapter) = split_model(&id);
    let status = state.runtime.status(deployment)?;
    Ok(Json(match adapter {
        Some(adapter) => Model::of_adapter(&status, adapter),
        None => Model::from(status),
    }))
}
