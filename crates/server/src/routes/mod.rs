//! The handlers.

pub(crate) mod adapters;
pub(crate) mod admin;
pub(crate) mod budgets;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod messages;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod native;
pub(crate) mod openapi;
pub(crate) mod prices;
pub(crate) mod rerank;
pub(crate) mod responses;
pub(crate) mod tokenize;
pub(crate) mod usage;

use std::sync::Arc;

use axum::http::HeaderMap;
use byzerllm_core::{ChatModel, Error, Result, Takeover};

use crate::state::AppState;

/// Runs work that may take a while on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    let outcome = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    outcome.unwrap_or_else(|error| {
        Err(Error::internal("the request failed inside the server; please report this").with_source(error))
    })
}

/// What may happen to an answer whose deployment fails: as `X-Byzerllm-Takeover` says, else `default`.
fn takeover(headers: &HeaderMap, default: Takeover) -> Result<Takeover> {
    const NAME: &str = "x-byzerllm-takeover";
    let Some(value) = headers.get(NAME) else { return Ok(default) };
    let word = value.to_str().unwrap_or_default();
    word.parse().map_err(|error: Error| {
        let message = format!("the header `{NAME}` is wrong: {}", error.message());
        Error::invalid(NAME, message)
    })
}

/// The same for streams that cannot say that an answer begins again.
fn takeover_of_stream(headers: &HeaderMap, stream: bool) -> Result<Takeover> {
    let most = if stream { Takeover::Continue } else { Takeover::Restart };
    Ok(takeover(headers, most)?.min(most))
}

/// The model that a body names, when there is one that answers.
fn chat_model(state: &AppState, name: &str) -> Option<Arc<dyn ChatModel>> {
    state.runtime.model(name).ok().and_then(|model| model.chat)
}
