//! `POST /v1/embeddings`.

use axum::extract::State;
use axum::response::Response;

use super::Wish;
use crate::answer;
use crate::body::ModelBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::sse;
use crate::state::AppState;
use crate::wire::embeddings::{EmbeddingAnswer, EmbeddingBody};

/// Turns texts into vectors.
pub(crate) async fn create(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<EmbeddingBody>,
) -> Result<Response, ApiError> {
    let (request, encoding) = body.into_request(extra)?;
    let (model, inputs) = (request.model.clone(), request.inputs.len());
    let embeddings = state.runtime.embed(caller.context(wish.id), request).await?;
    let (answer, notes) = EmbeddingAnswer::new(model, inputs, encoding, embeddings)?;
    Ok(sse::with_notes(answer::json(&answer)?, &notes))
}
