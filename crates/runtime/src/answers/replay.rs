//! A kept answer, told again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use byzerllm_core::{Event, RequestContext, RequestId, Result, Usage, UsageHook};
use futures::Stream;

use super::{Told, cached, repeated};

/// The events of a kept answer, with a start and a usage of their own.
pub(crate) struct Replay {
    id: RequestId,
    told: Arc<Told>,
    age: Duration,
    at: usize,
    usage: Usage,
    hook: Option<UsageHook>,
}

impl Replay {
    /// The answer for the request of this context.
    pub(crate) fn new(told: Arc<Told>, age: Duration, context: RequestContext) -> Self {
        let usage = repeated(&told.usage);
        Self { id: context.id, told, age, at: 0, usage, hook: context.on_usage }
    }

    fn event(&self, at: usize) -> Option<Event> {
        match at {
            0 => Some(Event::Started { request_id: self.id.clone(), vendor_request_id: None }),
            1 => Some(Event::Notice { notice: cached(self.age) }),
            _ => match self.told.events.get(at - 2) {
                Some(event) => Some(event.clone()),
                None if at - 2 == self.told.events.len() => Some(Event::Usage { usage: self.usage.clone() }),
                None => None,
            },
        }
    }
}

impl Stream for Replay {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = self.event(self.at);
        self.at += usize::from(event.is_some());
        Poll::Ready(event.map(Ok))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(hook) = self.hook.take() {
            hook(&self.usage);
        }
    }
}
