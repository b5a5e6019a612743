//! What was spent.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use byzerllm_core::Error;
use byzerllm_runtime::{UsageBy, UsageReport};
use serde::Deserialize;

use super::blocking;
use crate::error::ApiError;
use crate::state::AppState;

/// The query of a report.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    by: UsageBy,
    since: Option<u64>,
}

/// `GET /byzerllm/v1/usage`.
pub(crate) async fn report(
    State(state): State<AppState>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<UsageReport>, ApiError> {
    let Ok(Query(Asked { by, since })) = asked else {
        let words = UsageBy::ALL.map(UsageBy::as_str).join(", ");
        let message = format!(
            "the query may hold `by`, one of {words}, and `since`, seconds since 1970, and nothing else"
        );
        return Err(Error::invalid("by", message).into());
    };
    let ledger = state.runtime.ledger().clone();
    Ok(Json(blocking(move || ledger.usage(by, since)).await?))
}
