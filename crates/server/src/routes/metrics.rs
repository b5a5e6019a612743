//! `GET /metrics`.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::blocking;
use crate::error::ApiError;
use crate::metrics;
use crate::state::AppState;

/// Everything that is counted, in Prometheus' text format.
pub(crate) async fn page(State(state): State<AppState>) -> Result<impl IntoResponse, ApiError> {
    let page = blocking(move || {
        let runtime = &state.runtime;
        Ok(metrics::page(&runtime.metrics(), &runtime.ledger().metrics(), &state.http_metrics))
    });
    let page = page.await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page))
}
