//! `POST /v1/rerank` and `POST /v1/score`, each under the names that other servers have for them.

use axum::extract::State;
use axum::response::Response;

use super::Wish;
use crate::answer;
use crate::body::ModelBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::sse;
use crate::state::AppState;
use crate::wire::rerank::{RerankAnswer, RerankBody};
use crate::wire::score::{ScoreAnswer, ScoreBody, renamed};

/// Puts documents in order.
pub(crate) async fn rerank(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<RerankBody>,
) -> Result<Response, ApiError> {
    let (request, shown) = body.into_request(extra)?;
    let (model, documents) = (request.model.clone(), shown.texts(&request));
    let id = wish.id;
    let scores = state.runtime.rerank(caller.context(id.clone()), request).await?;
    let (answer, notes) = RerankAnswer::new(&id, model, documents, shown, &scores)?;
    Ok(sse::with_notes(answer::json(&answer)?, &notes))
}

/// Scores pairs of texts.
pub(crate) async fn score(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<ScoreBody>,
) -> Result<Response, ApiError> {
    let request = body.into_request(extra)?;
    let model = request.model.clone();
    let id = wish.id;
    let scores = state.runtime.rerank(caller.context(id.clone()), request).await.map_err(renamed)?;
    let (answer, notes) = ScoreAnswer::new(&id, model, &scores)?;
    Ok(sse::with_notes(answer::json(&answer)?, &notes))
}
