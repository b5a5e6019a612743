//! The handlers.

pub(crate) mod admin;
pub(crate) mod budgets;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod native;
pub(crate) mod openapi;
pub(crate) mod prices;
pub(crate) mod tokenize;
pub(crate) mod usage;

use byzerllm_core::{Error, Result};

/// Runs work that may take a while on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    let outcome = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    outcome.unwrap_or_else(|error| {
        Err(Error::internal("the request failed inside the server; please report this").with_source(error))
    })
}
