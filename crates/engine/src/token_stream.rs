//! Ids in, ids out: what a measurement of the engine alone needs.

use std::pin::Pin;
use std::task::{Context, Poll};

use byzerllm_core::{Domain, Result, Sampling};
use futures::Stream;

use crate::intake::{Ticket, Update};

/// A generation of ids.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// What to continue.
    pub prompt: Vec<u32>,
    /// How to sample; stop strings and log probabilities are ignored.
    pub sampling: Sampling,
    /// Go on after the model's end tokens, up to `max_tokens`.
    pub ignore_end: bool,
    /// Whose cached prefixes may be used.
    pub domain: Domain,
    /// The adapter that is used, by name.
    pub adapter: Option<String>,
}

/// The generated ids, without the end token. Dropping it cancels the work.
pub struct TokenStream {
    ticket: Ticket,
    over: bool,
}

impl TokenStream {
    pub(crate) fn new(ticket: Ticket) -> Self {
        Self { ticket, over: false }
    }
}

impl Stream for TokenStream {
    type Item = Result<u32>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.over {
            let Poll::Ready(update) = this.ticket.poll(context) else { return Poll::Pending };
            match update {
                Update::Prompt { .. } => {}
                Update::Token { id, .. } => return Poll::Ready(Some(Ok(id))),
                Update::Finished { reason, .. } => {
                    this.over = true;
                    this.ticket.complete();
                    if let byzerllm_core::FinishReason::Error(detail) = reason {
                        let error = byzerllm_core::Error::new(detail.kind, detail.message);
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Update::Failed(error) => {
                    this.over = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}
