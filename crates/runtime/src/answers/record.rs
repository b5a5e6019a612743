//! An answer that is written down while it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use byzerllm_core::{Event, FinishReason, Notice, Result, TokenLogprob};
use futures::{Stream, StreamExt};

use super::{Answers, Key, Told, describes_answer};

/// A stream whose answer is kept when it was complete.
pub(crate) struct Recorded<S> {
    inner: S,
    record: Option<Record>,
}

struct Record {
    answers: Arc<Answers>,
    key: Key,
    events: Vec<Event>,
    bytes: usize,
}

impl<S> Recorded<S> {
    /// Keeps the answer under the key of the request, when there is one.
    pub(crate) fn new(inner: S, keep: Option<(Arc<Answers>, Key)>) -> Self {
        let record = keep.map(|(answers, key)| Record { answers, key, events: Vec::new(), bytes: 0 });
        Self { inner, record }
    }

    fn see(&mut self, item: Option<&Result<Event>>) {
        let Some(record) = &mut self.record else { return };
        let Some(Ok(event)) = item else {
            self.record = None;
            return;
        };
        let goes_on = match event {
            Event::Started { .. } => true,
            Event::Usage { usage } => {
                if let Some(record) = self.record.take() {
                    let told = Told { events: record.events, usage: usage.clone() };
                    record.answers.keep(record.key, told, record.bytes);
                }
                return;
            }
            // The caller of another day has nothing that could be void.
            Event::Notice { notice: Notice::Restarted } => {
                record.events.clear();
                record.bytes = 0;
                true
            }
            Event::Notice { notice } if !describes_answer(notice) => true,
            Event::Finished {
                reason: FinishReason::ContentFilter | FinishReason::Cancelled | FinishReason::Error(_),
                ..
            } => false,
            event => record.note(event),
        };
        if !goes_on {
            self.record = None;
        }
    }
}

impl Record {
    /// Notes a piece; false when the answer has become too large to be kept.
    fn note(&mut self, event: &Event) -> bool {
        self.bytes = self.bytes.saturating_add(size(event));
        if self.bytes > self.answers.most() {
            return false;
        }
        self.events.push(event.clone());
        true
    }
}

/// The bytes that an event takes, about.
fn size(event: &Event) -> usize {
    let own = size_of::<Event>();
    own + match event {
        Event::Text { text, logprobs, .. } => text.len() + logprobs.as_deref().map_or(0, logprobs_size),
        Event::Reasoning { text, .. } => text.len(),
        Event::ToolCall { delta, .. } => {
            delta.arguments.len()
                + delta.id.as_ref().map_or(0, String::len)
                + delta.name.as_ref().map_or(0, String::len)
        }
        Event::Signature { signature, .. } => signature.len(),
        Event::PromptLogprobs { logprobs } => logprobs_size(logprobs),
        Event::Notice { notice: Notice::InvalidToolCall { reason, .. } } => reason.len(),
        Event::Finished { stop, .. } => stop.as_ref().map_or(0, String::len),
        Event::Started { .. } | Event::Notice { .. } | Event::Usage { .. } => 0,
    }
}

fn logprobs_size(logprobs: &[TokenLogprob]) -> usize {
    let one = |token: &TokenLogprob| {
        let top: usize =
            token.top.iter().map(|(_, bytes, _)| bytes.len() + size_of::<(u32, Vec<u8>, f32)>()).sum();
        size_of::<TokenLogprob>() + token.bytes.len() + top
    };
    logprobs.iter().map(one).sum()
}

impl<S: Stream<Item = Result<Event>> + Unpin> Stream for Recorded<S> {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.inner.poll_next_unpin(context));
        self.see(item.as_ref());
        Poll::Ready(item)
    }
}
