//! Attempts of models that do not talk to the ledger themselves: our own engine's. One per request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use byzerllm_core::{
    Attempt, ChatModel, ChatRequest, Ending, Error, ErrorKind, Event, EventStream, ModelInfo, RequestContext,
    Reservation, Result, Settlement, Task, Usage,
};
use futures::{Stream, StreamExt};
use serde::Serialize;

use super::price::LOCAL;
use crate::whole::Whole;

/// What a template may add to a prompt.
const TEMPLATE: u64 = 4096;

/// Asks a model, with its attempt accounted for.
pub(crate) async fn chat(
    model: &dyn ChatModel,
    info: &ModelInfo,
    deployment: &Arc<str>,
    request: ChatRequest,
    mut context: RequestContext,
) -> Result<EventStream> {
    if model.accounts() {
        return model.chat(request, context).await;
    }
    let Some(accounting) = context.accounting.take() else { return model.chat(request, context).await };
    let length = info.context_length.map(u64::from);
    let generated = request.sampling.max_tokens.map(u64::from);
    let choices = u64::from(request.best_of.unwrap_or(0).max(request.n));
    let attempt = Attempt {
        prompt_tokens: length.unwrap_or(u64::MAX).min(size(&request.input) + size(&request.tools) + TEMPLATE),
        completion_tokens: match (generated, length) {
            (Some(generated), Some(length)) => Some(generated.min(length)),
            (generated, length) => generated.or(length),
        }
        .map(|bound| bound.saturating_mul(choices)),
        // `deployment:adapter` where the request names an adapter.
        model: if request.model.contains(':') {
            request.model.as_str().into()
        } else {
            Arc::clone(deployment)
        },
        ..attempt(&context, deployment, Task::Chat)
    };
    let open = Arc::new(Open::new(accounting.begin(attempt).await?));
    let (told, heard) = (context.on_usage.take(), Arc::clone(&open));
    context.on_usage = Some(Arc::new(move |usage: &Usage| {
        heard.used(usage);
        if let Some(told) = &told {
            told(usage);
        }
    }));
    match model.chat(request, context).await {
        Ok(stream) => Ok(Box::pin(Accounted { stream, open, over: false })),
        Err(error) => {
            open.failed(&error, true);
            Err(error)
        }
    }
}

/// The same for a request whose answer comes in one piece.
pub(crate) async fn whole<R: Whole>(
    model: &R::Model,
    info: &ModelInfo,
    deployment: &Arc<str>,
    request: R,
    mut context: RequestContext,
) -> Result<R::Answer> {
    if R::accounts(model) {
        return request.ask(model, context).await;
    }
    let Some(accounting) = context.accounting.take() else { return request.ask(model, context).await };
    let attempt = Attempt { prompt_tokens: request.bound(info), ..attempt(&context, deployment, R::TASK) };
    let open = Open::new(accounting.begin(attempt).await?);
    let result = request.ask(model, context).await;
    match &result {
        Ok(answer) => {
            open.used(R::usage(answer));
            open.end(Ending::Answered);
        }
        Err(error) => open.failed(error, true),
    }
    result
}

fn attempt(context: &RequestContext, deployment: &Arc<str>, task: Task) -> Attempt {
    Attempt {
        request: context.id.clone(),
        principal: context.principal.clone(),
        deployment: Arc::clone(deployment),
        vendor: LOCAL,
        model: Arc::clone(deployment),
        task,
        number: 1,
        prompt_tokens: 0,
        completion_tokens: Some(0),
    }
}

/// No tokenizer makes more tokens than there are bytes.
fn size(value: &impl Serialize) -> u64 {
    serde_json::to_vec(value).map_or(u64::MAX / 4, |bytes| bytes.len() as u64)
}

/// An attempt that is settled once both its end and its tokens are known: a caller may leave first, and the engine tells
/// what it counted a step later.
struct Open {
    started: Instant,
    known: Mutex<Known>,
}

struct Known {
    reservation: Option<Box<dyn Reservation>>,
    ending: Option<Ending>,
    usage: Option<Usage>,
    first_event: Option<Duration>,
}

impl Open {
    fn new(reservation: Box<dyn Reservation>) -> Self {
        let known = Known { reservation: Some(reservation), ending: None, usage: None, first_event: None };
        Self { started: Instant::now(), known: Mutex::new(known) }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        if known.ending.is_some() && known.usage.is_some() {
            known.settle();
        }
    }

    fn used(&self, usage: &Usage) {
        self.change(|known| known.usage = Some(usage.clone()));
    }

    /// The first end counts.
    fn end(&self, ending: Ending) {
        self.change(|known| {
            known.ending.get_or_insert(ending);
        });
    }

    /// `early` failures are before any work.
    fn failed(&self, error: &Error, early: bool) {
        if let Some(usage) = error.usage() {
            self.used(usage);
        }
        self.end(if early { Ending::Refused(error.kind()) } else { Ending::Failed(error.kind()) });
    }

    fn began(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.first_event.get_or_insert(self.started.elapsed());
    }
}

impl Known {
    fn settle(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(Settlement {
                ending: self.ending.take().unwrap_or(Ending::Dropped),
                usage: self.usage.take(),
                vendor_request_id: None,
                first_event: self.first_event,
            });
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.known.get_mut().unwrap_or_else(PoisonError::into_inner).settle();
    }
}

/// A stream whose end is accounted for.
struct Accounted {
    stream: EventStream,
    open: Arc<Open>,
    over: bool,
}

impl Stream for Accounted {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.stream.poll_next_unpin(context));
        match &item {
            Some(Ok(Event::Text { .. } | Event::Reasoning { .. } | Event::ToolCall { .. })) if !self.over => {
                self.open.began();
            }
            Some(Ok(Event::Usage { usage })) => {
                self.open.used(usage);
                self.open.end(Ending::Answered);
            }
            Some(Err(error)) => self.open.failed(error, false),
            None => self.open.end(Ending::Failed(ErrorKind::Internal)),
            Some(Ok(_)) => {}
        }
        self.over |= matches!(&item, None | Some(Err(_) | Ok(Event::Usage { .. })));
        Poll::Ready(item)
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        self.open.end(Ending::Dropped);
    }
}
