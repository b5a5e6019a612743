//! Limits on what keys and deployments may spend.

use axum::Json;
use axum::extract::{Path, State};
use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_runtime::{Budget, NewBudget};

use super::blocking;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::ledger::RemoveAnswer;

/// `GET /byzerllm/v1/budgets`.
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vec<Budget>> {
    Json(state.runtime.ledger().budgets())
}

/// `POST /byzerllm/v1/budgets`.
pub(crate) async fn set(
    State(state): State<AppState>,
    JsonBody(budget): JsonBody<NewBudget>,
) -> Result<Json<Budget>, ApiError> {
    let ledger = state.runtime.ledger().clone();
    let set = blocking(move || ledger.set_budget(&budget)).await?;
    tracing::info!(id = set.id, name = %set.budget.name, limit = %set.budget.limit, "a budget was set");
    Ok(Json(set))
}

/// `DELETE /byzerllm/v1/budgets/{id}`.
pub(crate) async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<RemoveAnswer>, ApiError> {
    let id = number(&id, "budget")?;
    let ledger = state.runtime.ledger().clone();
    blocking(move || ledger.remove_budget(id)).await?;
    tracing::info!(id, "a budget was removed");
    Ok(Json(RemoveAnswer { id, removed: true }))
}

/// The number of a budget or price in a path.
pub(super) fn number(text: &str, what: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        let message =
            format!("there is no {what} '{}'; a {what} is named by its number", shown.escape_debug());
        Error::new(ErrorKind::NotFound, message).with_param("id")
    })
}
