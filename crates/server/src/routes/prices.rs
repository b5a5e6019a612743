//! What vendors ask for their models.

use axum::Json;
use axum::extract::{Path, State};
use byzerllm_runtime::Price;

use super::blocking;
use super::budgets::number;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::ledger::{RemoveAnswer, SetPricesBody};

/// `GET /byzerllm/v1/prices`.
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vec<Price>> {
    Json(state.runtime.ledger().prices())
}

/// `POST /byzerllm/v1/prices`.
pub(crate) async fn set(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<SetPricesBody>,
) -> Result<Json<Vec<Price>>, ApiError> {
    let ledger = state.runtime.ledger().clone();
    let prices = body.prices.0;
    let count = prices.len();
    let all = blocking(move || ledger.set_prices(prices)).await?;
    tracing::info!(count, "prices were set");
    Ok(Json(all))
}

/// `DELETE /byzerllm/v1/prices/{id}`.
pub(crate) async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<RemoveAnswer>, ApiError> {
    let id = number(&id, "price")?;
    let ledger = state.runtime.ledger().clone();
    blocking(move || ledger.remove_price(id)).await?;
    tracing::info!(id, "a price was removed");
    Ok(Json(RemoveAnswer { id, removed: true }))
}
