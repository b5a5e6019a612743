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

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use byzerllm_core::{ChatModel, Error, RequestId, Result, Takeover};

use crate::error::request_id;
use crate::state::AppState;

static TAKEOVER: HeaderName = HeaderName::from_static("x-byzerllm-takeover");

/// Runs work that may take a while on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    let outcome = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    outcome.unwrap_or_else(|error| {
        Err(Error::internal("the request failed inside the server; please report this").with_source(error))
    })
}

/// What handlers that ask models need of a request's head. A copy of the whole head would cost an allocation for each
/// of its parts.
pub(crate) struct Wish {
    id: RequestId,
    takeover: Option<HeaderValue>,
}

impl FromRequestParts<AppState> for Wish {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(Self { id: request_id(&parts.extensions), takeover: parts.headers.get(&TAKEOVER).cloned() })
    }
}

impl Wish {
    /// What may happen to an answer whose deployment fails: as `X-Byzerllm-Takeover` says, else `default`.
    fn takeover(&self, default: Takeover) -> Result<Takeover> {
        let Some(value) = &self.takeover else { return Ok(default) };
        let word = value.to_str().unwrap_or_default();
        word.parse().map_err(|error: Error| {
            let message = format!("the header `{TAKEOVER}` is wrong: {}", error.message());
            Error::invalid(TAKEOVER.as_str(), message)
        })
    }

    /// The same for streams that cannot say that an answer begins again.
    fn takeover_of_stream(&self, stream: bool) -> Result<Takeover> {
        let most = if stream { Takeover::Continue } else { Takeover::Restart };
        Ok(self.takeover(most)?.min(most))
    }
}

/// The model that a body names, when there is one that answers.
fn chat_model(state: &AppState, name: &str) -> Option<Arc<dyn ChatModel>> {
    state.runtime.model(name).ok().and_then(|model| model.chat)
}
