//! Requests and tokens per minute: who may start now, and how long the others wait.

mod estimate;
mod rates;
mod window;

pub(crate) use estimate::{chat_tokens, embedding_tokens, rerank_tokens};
pub(crate) use rates::{Rates, Ticket};
