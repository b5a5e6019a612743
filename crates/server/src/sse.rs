//! Server-sent events.
//!
//! A stream answers with HTTP status 200 only once its first event is there, so that whatever is refused before has
//! its own status. Later errors travel as `data: {"error": …}`, which OpenAI's client libraries raise, and end the
//! stream without `[DONE]`. When the client goes away, hyper drops the body, the body drops the stream, and the
//! stream cancels the work.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use byzerllm_core::{ChatResponse, Error, Event, EventStream, Result, collect};
use futures::stream::{self, BoxStream, StreamExt};
use hyper::body::Frame;
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{VENDOR_REQUEST_ID, log};
use crate::limits;
use crate::wire::error::ErrorBody;
use crate::wire::notes::Notes;

/// What most events need at most, in bytes.
const USUAL: usize = 512;

/// The deployment that answered in place of the one that was asked.
static SERVED_BY: HeaderName = HeaderName::from_static("x-byzerllm-served-by");
/// `hit` for an answer that was kept.
static CACHE: HeaderName = HeaderName::from_static("x-byzerllm-cache");

/// Turns events into what one route sends.
pub(crate) trait Encode: Send + Unpin + 'static {
    /// What travels in one `data:` line.
    type Chunk: Serialize + Send;

    /// The data of the line that ends a complete stream, where the API has one.
    const DONE: Option<&'static str> = Some("[DONE]");

    /// The chunks for an event of one of the request's prompts.
    fn event(&mut self, prompt: usize, event: Event) -> Result<Vec<Self::Chunk>>;

    /// The chunks after the last event.
    fn end(&mut self) -> Result<Vec<Self::Chunk>>;

    /// What ends a stream that failed.
    fn failed(&mut self, error: &Error, lines: &mut Lines) {
        lines.event(None, &ErrorBody::in_stream(error));
    }

    /// The name of a chunk's event, where the API has names.
    fn name(_chunk: &Self::Chunk) -> Option<&'static str> {
        None
    }
}

/// Events of several prompts, each with the prompt's place.
pub(crate) type Events = BoxStream<'static, (usize, Result<Event>)>;

/// The events of a request with one prompt.
pub(crate) fn alone(events: EventStream) -> Events {
    events.map(|event| (0, event)).boxed()
}

/// Waits for the first event; what fails before it is an ordinary error. What the first event tells comes along, for
/// the headers.
///
/// # Errors
/// The first item's.
pub(crate) async fn begun(mut events: Events) -> Result<(Events, Notes)> {
    let mut notes = Notes::default();
    match events.next().await {
        Some((_, Err(error))) => Err(error),
        Some((prompt, Ok(first))) => {
            notes.see(&first);
            let first = std::future::ready((prompt, Ok(first)));
            Ok((stream::once(first).chain(events).boxed(), notes))
        }
        None => Ok((events, notes)),
    }
}

/// Folds a stream, and keeps what its events tell beside the answer.
///
/// # Errors
/// As [`collect`]'s.
pub(crate) async fn folded(events: EventStream) -> Result<(ChatResponse, Notes)> {
    let mut notes = Notes::default();
    let watched = events.inspect(|event| {
        if let Ok(event) = event {
            notes.see(event);
        }
    });
    let response = collect(watched).await?;
    Ok((response, notes))
}

/// Puts what is known of an answer's way into its headers.
pub(crate) fn with_notes(mut response: Response, notes: &Notes) -> Response {
    let headers = response.headers_mut();
    let texts = [
        (&VENDOR_REQUEST_ID, notes.vendor_request_id()),
        (&SERVED_BY, notes.served_by()),
        (&CACHE, notes.cached().then_some("hit")),
    ];
    for (name, text) in texts {
        if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
            headers.insert(name.clone(), value);
        }
    }
    response
}

/// The same for the events of one request.
///
/// # Errors
/// The first item's.
pub(crate) async fn begun_alone(mut events: EventStream) -> Result<EventStream> {
    match events.next().await {
        Some(Err(error)) => Err(error),
        Some(first) => Ok(stream::once(std::future::ready(first)).chain(events).boxed()),
        None => Ok(events),
    }
}

/// Server-sent events as they go over the wire.
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Writes an event. What cannot be written as JSON, which none of our types is, becomes an error object.
    pub(crate) fn event(&mut self, name: Option<&'static str>, value: &impl Serialize) {
        if self.0.capacity() == 0 {
            self.0.reserve(USUAL);
        }
        if let Some(name) = name {
            self.text("event: ", name);
            self.0.push(b'\n');
        }
        let begin = self.0.len();
        self.text("data: ", "");
        // JSON has no line ends outside of strings, and escapes those in them.
        if serde_json::to_writer(&mut self.0, value).is_err() {
            self.0.truncate(begin);
            let sorry = r#"{"error":{"message":"the answer cannot be written as JSON","code":"internal"}}"#;
            self.text("data: ", sorry);
        }
        self.0.extend_from_slice(b"\n\n");
    }

    fn text(&mut self, field: &str, text: &str) {
        self.0.extend_from_slice(field.as_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Streams chunks.
pub(crate) fn encoded<E: Encode>(events: Events, encoder: E) -> Response {
    respond(Encoded { events, encoder })
}

/// Streams events as they are; an error is an event of the name `error`.
pub(crate) fn native(events: EventStream) -> Response {
    respond(Native(events))
}

/// What is told of a stream of events.
trait Source: Unpin + Send + 'static {
    /// Writes what the next event becomes. Nothing more follows after `true`.
    fn poll_lines(&mut self, context: &mut Context<'_>, lines: &mut Lines) -> Poll<bool>;
}

/// Events in the words of a route.
struct Encoded<E> {
    events: Events,
    encoder: E,
}

impl<E: Encode> Source for Encoded<E> {
    fn poll_lines(&mut self, context: &mut Context<'_>, lines: &mut Lines) -> Poll<bool> {
        let (outcome, over) = match ready!(self.events.as_mut().poll_next(context)) {
            Some((prompt, Ok(event))) => (self.encoder.event(prompt, event), false),
            Some((_, Err(error))) => (Err(error), true),
            None => (self.encoder.end(), true),
        };
        match outcome {
            Ok(chunks) => {
                for chunk in &chunks {
                    lines.event(E::name(chunk), chunk);
                }
                if let Some(done) = E::DONE.filter(|_| over) {
                    lines.text("data: ", done);
                    lines.text("\n\n", "");
                }
                Poll::Ready(over)
            }
            Err(error) => {
                log(&error);
                self.encoder.failed(&error, lines);
                Poll::Ready(true)
            }
        }
    }
}

/// Events as they are.
struct Native(EventStream);

impl Source for Native {
    fn poll_lines(&mut self, context: &mut Context<'_>, lines: &mut Lines) -> Poll<bool> {
        match ready!(self.0.as_mut().poll_next(context)) {
            Some(Ok(event)) => {
                lines.event(None, &event);
                Poll::Ready(false)
            }
            Some(Err(error)) => {
                log(&error);
                lines.event(Some("error"), &error);
                Poll::Ready(true)
            }
            None => Poll::Ready(true),
        }
    }
}

fn respond(source: impl Source) -> Response {
    let mut response = Response::new(Body::new(Told { source: Some(source), quiet: None, timer: None }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A reverse proxy must not collect a stream before it passes it on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The body of an answer that is told as it comes. A comment keeps a silent one alive.
struct Told<S> {
    /// `None` at the end.
    source: Option<S>,
    /// Since when nothing was written, once something waits.
    quiet: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Told<S> {
    /// Ready when nothing was written for a while.
    fn poll_silence(&mut self, context: &mut Context<'_>, interval: Duration) -> Poll<()> {
        let until = *self.quiet.get_or_insert_with(Instant::now) + interval;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(context));
            // To set it anew for every event would cost more than to look again now and then.
            if timer.deadline() >= until {
                self.timer = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

impl<S: Source> hyper::body::Body for Told<S> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(source) = &mut this.source else { return Poll::Ready(None) };
        let mut lines = Lines(Vec::new());
        let over = loop {
            match source.poll_lines(context, &mut lines) {
                // Not every event is told.
                Poll::Ready(false) if lines.0.is_empty() => {}
                Poll::Ready(over) => break over,
                Poll::Pending => break false,
            }
        };
        if over {
            this.source = None;
        }
        if lines.0.is_empty() {
            if over {
                return Poll::Ready(None);
            }
            ready!(this.poll_silence(context, limits::KEEP_ALIVE));
            lines.text(": keep-alive\n\n", "");
        }
        this.quiet = None;
        Poll::Ready(Some(Ok(Frame::data(lines.0.into()))))
    }
}
