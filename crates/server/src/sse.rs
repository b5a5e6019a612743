//! Server-sent events.
//!
//! A stream answers with HTTP status 200 only once its first event is there, so that whatever is refused before has
//! its own status. Later errors travel as `data: {"error": …}`, which OpenAI's client libraries raise, and end the
//! stream without `[DONE]`. When the client goes away, hyper drops the body, the body drops the stream, and the
//! stream cancels the work.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
pub(crate) use axum::response::sse::Event as Frame;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use byzerllm_core::{ChatResponse, Error, Event, EventStream, Result, collect};
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;

use crate::error::{VENDOR_REQUEST_ID, log};
use crate::limits;
use crate::wire::error::ErrorBody;
use crate::wire::notes::Notes;

/// The deployment that answered in place of the one that was asked.
static SERVED_BY: HeaderName = HeaderName::from_static("x-byzerllm-served-by");
/// `hit` for an answer that was kept.
static CACHE: HeaderName = HeaderName::from_static("x-byzerllm-cache");

/// Turns events into what one route sends.
pub(crate) trait Encode: Send + 'static {
    /// What travels in one `data:` line.
    type Chunk: Serialize + Send;

    /// The data of the line that ends a complete stream, where the API has one.
    const DONE: Option<&'static str> = Some("[DONE]");

    /// The chunks for an event of one of the request's prompts.
    fn event(&mut self, prompt: usize, event: Event) -> Result<Vec<Self::Chunk>>;

    /// The chunks after the last event.
    fn end(&mut self) -> Result<Vec<Self::Chunk>>;

    /// What ends a stream that failed.
    fn failed(&mut self, error: &Error) -> Vec<Frame> {
        vec![frame(None, &ErrorBody::in_stream(error))]
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
    let seen: Arc<Mutex<Notes>> = Arc::default();
    let notes = Arc::clone(&seen);
    let watched = events.inspect(move |event| {
        if let Ok(event) = event {
            notes.lock().unwrap_or_else(PoisonError::into_inner).see(event);
        }
    });
    let response = collect(watched.boxed()).await?;
    let notes = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
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

/// Streams chunks.
pub(crate) fn encoded<E: Encode>(events: Events, encoder: E) -> Response {
    let frames = stream::unfold(Some((events, encoder)), |state| async move {
        let (mut events, mut encoder) = state?;
        let (outcome, over) = match events.next().await {
            Some((prompt, Ok(event))) => (encoder.event(prompt, event), false),
            Some((_, Err(error))) => (Err(error), true),
            None => (encoder.end(), true),
        };
        Some(match outcome {
            Ok(chunks) => {
                let mut frames: Vec<Frame> =
                    chunks.iter().map(|chunk| frame(E::name(chunk), chunk)).collect();
                if !over {
                    return Some((frames, Some((events, encoder))));
                }
                frames.extend(E::DONE.map(|done| Frame::default().data(done)));
                (frames, None)
            }
            Err(error) => {
                log(&error);
                (encoder.failed(&error), None)
            }
        })
    });
    respond(frames.boxed())
}

/// Streams events as they are; an error is an event of the name `error`.
pub(crate) fn native(events: EventStream) -> Response {
    let frames = stream::unfold(Some(events), |state| async move {
        let mut events = state?;
        match events.next().await? {
            Ok(event) => Some((vec![frame(None, &event)], Some(events))),
            Err(error) => {
                log(&error);
                Some((vec![frame(Some("error"), &error)], None))
            }
        }
    });
    respond(frames.boxed())
}

fn respond(frames: BoxStream<'static, Vec<Frame>>) -> Response {
    let frames = frames.flat_map(stream::iter).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(limits::KEEP_ALIVE).text("keep-alive");
    let mut response = Sse::new(frames).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A reverse proxy must not collect a stream before it passes it on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// One `data:` line, with the name of its event. What cannot be written as JSON, which none of our types is, becomes an
/// error object.
pub(crate) fn frame(name: Option<&'static str>, value: &impl Serialize) -> Frame {
    let frame = Frame::default().json_data(value).unwrap_or_else(|_| {
        Frame::default()
            .data(r#"{"error":{"message":"the answer cannot be written as JSON","code":"internal"}}"#)
    });
    match name {
        Some(name) => frame.event(name),
        None => frame,
    }
}
