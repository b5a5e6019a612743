//! `POST /tokenize` and `POST /detokenize`.

use axum::Json;
use axum::extract::State;

use super::blocking;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::tokens::{DetokenizeAnswer, DetokenizeBody, Source, TokenizeAnswer, TokenizeBody};

/// The tokens of a text or a conversation, without those that a model puts around a bare prompt.
pub(crate) async fn tokenize(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<TokenizeBody>,
) -> Result<Json<TokenizeAnswer>, ApiError> {
    let (model, source) = body.into_source()?;
    let max_model_len = state.runtime.model(&model)?.info.context_length;
    let work = move || {
        let text = match source {
            Source::Prompt(prompt) => prompt,
            Source::Messages(messages, begun) => state.runtime.apply_template(&model, &messages, begun)?,
        };
        state.runtime.tokenize(&model, &text)
    };
    let tokens = blocking(work).await?;
    Ok(Json(TokenizeAnswer { count: tokens.len(), max_model_len, tokens }))
}

/// The text of tokens.
pub(crate) async fn detokenize(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<DetokenizeBody>,
) -> Result<Json<DetokenizeAnswer>, ApiError> {
    let prompt = blocking(move || state.runtime.detokenize(&body.model, &body.tokens.0)).await?;
    Ok(Json(DetokenizeAnswer { prompt }))
}
