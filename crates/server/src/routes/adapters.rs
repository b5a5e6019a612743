//! Adapters of deployments: our own routes, and those that vLLM has for them. A change goes on when its client leaves.

use axum::Json;
use axum::extract::{Path, State};
use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_runtime::{AdapterInfo, DeploymentState, Source, split_model};

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::adapters::{LoadAdapterBody, LoadLoraBody, UnloadAdapterAnswer, UnloadLoraBody};

/// `GET /byzerllm/v1/deployments/{name}/adapters`.
pub(crate) async fn list(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Vec<AdapterInfo>>, ApiError> {
    Ok(Json(state.runtime.adapters(&name)?))
}

/// `POST /byzerllm/v1/deployments/{name}/adapters`.
pub(crate) async fn load(
    State(state): State<AppState>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<LoadAdapterBody>,
) -> Result<Json<AdapterInfo>, ApiError> {
    Ok(Json(state.runtime.load_adapter(&name, &body.name, &body.path).await?))
}

/// `DELETE /byzerllm/v1/deployments/{name}/adapters/{adapter}`.
pub(crate) async fn unload(
    State(state): State<AppState>,
    Path((name, adapter)): Path<(String, String)>,
) -> Result<Json<UnloadAdapterAnswer>, ApiError> {
    state.runtime.unload_adapter(&name, &adapter).await?;
    Ok(Json(UnloadAdapterAnswer { deployment: name, name: adapter, deleted: true }))
}

/// `POST /v1/load_lora_adapter`.
pub(crate) async fn load_lora(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<LoadLoraBody>,
) -> Result<String, ApiError> {
    let (deployment, name) = place(&state, &body.lora_name, body.base_model_name.as_deref(), "load")?;
    if body.load_inplace == Some(true) {
        let message =
            "load_inplace is not supported: unload the adapter first, or load it under another name";
        return Err(Error::new(ErrorKind::Unsupported, message).with_param("load_inplace").into());
    }
    state.runtime.load_adapter(&deployment, name, &body.lora_path).await?;
    Ok(format!("Success: LoRA adapter '{deployment}:{name}' added successfully."))
}

/// `POST /v1/unload_lora_adapter`.
pub(crate) async fn unload_lora(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<UnloadLoraBody>,
) -> Result<String, ApiError> {
    let (deployment, name) = place(&state, &body.lora_name, body.base_model_name.as_deref(), "unload")?;
    state.runtime.unload_adapter(&deployment, name).await?;
    Ok(format!("Success: LoRA adapter '{deployment}:{name}' removed successfully."))
}

/// The deployment and the name of an adapter. vLLM serves one model, so that its clients name none: then the only one
/// that can be meant is taken.
fn place<'a>(
    state: &AppState,
    lora_name: &'a str,
    base: Option<&str>,
    verb: &str,
) -> Result<(String, &'a str)> {
    if let (deployment, Some(name)) = split_model(lora_name) {
        return Ok((deployment.to_owned(), name));
    }
    if let Some(base) = base {
        return Ok((base.to_owned(), lora_name));
    }
    let local = |status: &byzerllm_runtime::DeploymentStatus| {
        let here = matches!(status.spec.source(), Source::Local(_));
        let has = verb == "load" || status.spec.adapters.contains_key(lora_name);
        here && has && matches!(status.state, DeploymentState::Ready)
    };
    let mut names: Vec<String> =
        state.runtime.list().into_iter().filter(local).map(|status| status.spec.name).collect();
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok((name, lora_name)),
        (None, _) if verb == "load" => {
            let message = "there is no model that could take an adapter; deploy one first";
            Err(Error::new(ErrorKind::NotFound, message).with_param("lora_name"))
        }
        (None, _) => {
            let message = format!("no deployment has an adapter '{}'", lora_name.escape_debug());
            Err(Error::new(ErrorKind::NotFound, message).with_param("lora_name"))
        }
        (Some(_), false) => {
            let message = "more than one deployment may be meant; write lora_name as `deployment:name`, or add \
                           base_model_name";
            Err(Error::invalid("lora_name", message))
        }
    }
}
