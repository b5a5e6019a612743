//! Server-sent events.
//!
//! A stream answers with HTTP status 200 only once its first event is there, so that whatever is refused before has
//! its own status. Later errors travel as `data: {"error": …}`, which OpenAI's client libraries raise, and end the
//! stream without `[DONE]`. When the client goes away, hyper drops the body, the body drops the stream, and the
//! stream cancels the work.

use std::convert::Infallible;

use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use byzerllm_core::{Error, Event, EventStream, Result};
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;

use crate::error::log;
use crate::limits;
use crate::wire::error::ErrorBody;

/// Turns events into what one route sends.
pub(crate) trait Encode: Send + 'static {
    /// What travels in one `data:` line.
    type Chunk: Serialize + Send;

    /// The chunks for an event of one of the request's prompts.
    fn event(&mut self, prompt: usize, event: Event) -> Result<Vec<Self::Chunk>>;

    /// The chunks after the last event.
    fn end(&mut self) -> Result<Vec<Self::Chunk>>;
}

/// Events of several prompts, each with the prompt's place.
pub(crate) type Events = BoxStream<'static, (usize, Result<Event>)>;

/// Waits for the first event; what fails before it is an ordinary error.
///
/// # Errors
/// The first item's.
pub(crate) async fn begun(mut events: Events) -> Result<Events> {
    match events.next().await {
        Some((_, Err(error))) => Err(error),
        Some(first) => Ok(stream::once(std::future::ready(first)).chain(events).boxed()),
        None => Ok(events),
    }
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

/// Streams chunks in OpenAI's manner.
pub(crate) fn openai<E: Encode>(events: Events, encoder: E) -> Response {
    let frames = stream::unfold(Some((events, encoder)), |state| async move {
        let (mut events, mut encoder) = state?;
        Some(match events.next().await {
            Some((prompt, Ok(event))) => match encoder.event(prompt, event) {
                Ok(chunks) => (chunks.iter().map(json).collect(), Some((events, encoder))),
                Err(error) => (vec![openai_error(&error)], None),
            },
            Some((_, Err(error))) => (vec![openai_error(&error)], None),
            None => match encoder.end() {
                Ok(chunks) => {
                    let mut frames: Vec<Frame> = chunks.iter().map(json).collect();
                    frames.push(Frame::default().data("[DONE]"));
                    (frames, None)
                }
                Err(error) => (vec![openai_error(&error)], None),
            },
        })
    });
    respond(frames.boxed())
}

/// Streams events as they are; an error is an event of the name `error`.
pub(crate) fn native(events: EventStream) -> Response {
    let frames = stream::unfold(Some(events), |state| async move {
        let mut events = state?;
        match events.next().await? {
            Ok(event) => Some((vec![json(&event)], Some(events))),
            Err(error) => {
                log(&error);
                Some((vec![json(&error).event("error")], None))
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

fn openai_error(error: &Error) -> Frame {
    log(error);
    json(&ErrorBody::in_stream(error))
}

/// One `data:` line. What cannot be written as JSON, which none of our types is, becomes an error object.
fn json(value: &impl Serialize) -> Frame {
    Frame::default().json_data(value).unwrap_or_else(|_| {
        Frame::default()
            .data(r#"{"error":{"message":"the answer cannot be written as JSON","code":"internal"}}"#)
    })
}
