//! One request, followed from its arrival to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use byzerllm_core::{ChatRequest, Event, FinishReason, Input, RequestContext, Result, Sampling, Usage};
use futures::{Stream, StreamExt};
use tracing::Span;

use super::{Numbers, Outcome};
use crate::traces;

/// What is told of a choice that never finished.
const UNFINISHED: &str = "cancelled";

/// Counts one request, however it ends: with its last event, with an error, or because nobody waits for it any more.
pub(crate) struct Measured {
    numbers: Arc<Numbers>,
    span: Span,
    arrived: Instant,
    place: Place,
    /// How the first choice finished, or the one that failed.
    reason: Option<Outcome>,
    unfinished: u32,
    /// By choice: when its last piece came.
    pieces: Vec<Piece>,
    answered: bool,
    /// By choice, when somebody traces: why it ended.
    reasons: Vec<&'static str>,
}

/// Where the request is counted at present.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Running,
    Over,
}

#[derive(Clone, Copy)]
enum Piece {
    /// The next text is the prompt's own.
    Echo,
    None,
    Last(Instant),
}

impl Measured {
    /// A request arrives.
    pub(crate) fn arrive(numbers: &Arc<Numbers>, request: &ChatRequest, context: &RequestContext) -> Self {
        Self::under(traces::generation(request, context), numbers)
    }

    /// A request with this span arrives.
    pub(crate) fn under(span: Span, numbers: &Arc<Numbers>) -> Self {
        numbers.waiting.fetch_add(1, Ordering::Relaxed);
        Self {
            numbers: Arc::clone(numbers),
            span,
            arrived: Instant::now(),
            place: Place::Waiting,
            reason: None,
            unfinished: 0,
            pieces: Vec::new(),
            answered: false,
            reasons: Vec::new(),
        }
    }

    /// The request's tokens are counted when they are told, also to a caller that has left.
    pub(crate) fn listen(&self, context: &mut RequestContext) {
        let (numbers, span, told) = (Arc::clone(&self.numbers), self.span.clone(), context.on_usage.take());
        context.on_usage = Some(Arc::new(move |usage: &Usage| {
            numbers.spend(usage);
            traces::spent(&span, usage);
            if let Some(told) = &told {
                told(usage);
            }
        }));
    }

    /// The tokens of a request whose answer comes in one piece.
    pub(crate) fn spent(&self, usage: &Usage) {
        self.numbers.spend(usage);
        traces::spent(&self.span, usage);
    }

    /// The request's defaults are filled in.
    pub(crate) fn resolved(&self, sampling: &Sampling) {
        traces::resolved(&self.span, sampling);
    }

    /// The request got its place.
    pub(crate) fn admitted(&mut self) {
        let waited = self.arrived.elapsed();
        self.numbers.queue.observe(waited);
        traces::waited(&self.span, waited);
        self.go(Place::Running);
    }

    /// The model accepted the request.
    pub(crate) fn begun(&mut self, request: Accepted) {
        self.unfinished = request.choices;
        let first = if request.echo { Piece::Echo } else { Piece::None };
        self.pieces = vec![first; request.choices as usize];
        if !self.span.is_disabled() {
            self.reasons = vec![UNFINISHED; request.choices as usize];
        }
    }

    /// Ends in one of the outcomes; later ones do not count.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if self.place == Place::Over {
            return;
        }
        self.go(Place::Over);
        self.numbers.requests[outcome.0].fetch_add(1, Ordering::Relaxed);
        if outcome.is_complete() {
            self.numbers.duration.observe(self.arrived.elapsed());
        }
        traces::ended(&self.span, outcome, &self.reasons);
        // The hook may live on with the model; the span is over now.
        self.span = Span::none();
    }

    fn go(&mut self, place: Place) {
        let gauge = |place| -> Option<&AtomicU64> {
            match place {
                Place::Waiting => Some(&self.numbers.waiting),
                Place::Running => Some(&self.numbers.running),
                Place::Over => None,
            }
        };
        if let Some(entered) = gauge(place) {
            entered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(left) = gauge(self.place) {
            left.fetch_sub(1, Ordering::Relaxed);
        }
        self.place = place;
    }

    fn see(&mut self, item: Option<&Result<Event>>) {
        match item {
            Some(Ok(Event::Text { choice, text, .. } | Event::Reasoning { choice, text })) => {
                // Log probabilities may come before the text of their tokens.
                if !text.is_empty() {
                    self.piece(*choice);
                }
            }
            Some(Ok(Event::ToolCall { choice, .. })) => self.piece(*choice),
            Some(Ok(Event::Finished { choice, reason, .. })) => self.finished(*choice, reason),
            Some(Ok(Event::Usage { .. })) => self.end(self.reason.unwrap_or(Outcome::CANCELLED)),
            Some(Ok(
                Event::Started { .. }
                | Event::PromptLogprobs { .. }
                | Event::Notice { .. }
                | Event::Signature { .. },
            )) => {}
            Some(Err(error)) => self.end(Outcome::failed(error.kind())),
            None => self.end(Outcome::failed(byzerllm_core::ErrorKind::Internal)),
        }
    }

    fn piece(&mut self, choice: u32) {
        let Some(piece) = self.pieces.get_mut(choice as usize) else { return };
        let now = Instant::now();
        *piece = match *piece {
            Piece::Echo => Piece::None,
            Piece::None => {
                if !self.answered {
                    self.answered = true;
                    let waited = now.duration_since(self.arrived);
                    self.numbers.first_token.observe(waited);
                    traces::answered(&self.span, waited);
                }
                Piece::Last(now)
            }
            Piece::Last(before) => {
                self.numbers.between_tokens.observe(now.duration_since(before));
                Piece::Last(now)
            }
        };
    }

    fn finished(&mut self, choice: u32, reason: &FinishReason) {
        self.unfinished = self.unfinished.saturating_sub(1);
        if let Some(word) = self.reasons.get_mut(choice as usize) {
            *word = reason.as_str();
        }
        let failed = matches!(reason, FinishReason::Error(_));
        let known = self.reason.is_some_and(|reason| !reason.is_complete());
        if failed || (choice == 0 && !known) {
            self.reason = Some(Outcome::finished(reason));
        }
    }
}

impl Drop for Measured {
    /// Nobody waits for the rest; when all choices had finished, nothing was missed.
    fn drop(&mut self) {
        let complete = self.reason.filter(|_| self.unfinished == 0);
        self.end(complete.unwrap_or(Outcome::CANCELLED));
    }
}

/// What is left to know of a request once the model has it.
#[derive(Clone, Copy)]
pub(crate) struct Accepted {
    choices: u32,
    echo: bool,
}

impl Accepted {
    pub(crate) fn of(request: &ChatRequest) -> Self {
        let empty = match &request.input {
            Input::Messages(_) => false,
            Input::Text(text) => text.is_empty(),
            Input::Tokens(ids) => ids.is_empty(),
        };
        Self { choices: request.n, echo: request.echo && !empty }
    }
}

/// A stream whose events are counted as they pass.
pub(crate) struct Observed<S> {
    inner: S,
    measured: Measured,
}

impl<S> Observed<S> {
    pub(crate) fn new(inner: S, measured: Measured) -> Self {
        Self { inner, measured }
    }
}

impl<S: Stream<Item = Result<Event>> + Unpin> Stream for Observed<S> {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.inner.poll_next_unpin(context));
        self.measured.see(item.as_ref());
        Poll::Ready(item)
    }
}
