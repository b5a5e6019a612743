//! Reading a JSON body: bounded in size, time and total memory, every mistake named by its path.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use byzerllm_core::ModelHandle;
use futures::StreamExt;
use serde::Deserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::caller::Caller;
use crate::error::ApiError;
use crate::limits;
use crate::state::AppState;
use crate::wire;
use crate::wire::extra::Text;

/// A parsed JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (caller, bytes, _memory) = arrive(request, state).await?;
        let clear = caller.check_body(&bytes)?;
        let value = wire::fields::parse(&bytes)?;
        if clear { Ok(Self(value)) } else { Err(caller.unclear().into()) }
    }
}

/// A parsed JSON body that asks a model, and the parameters in it that are the model's own. Boxed, as it is of a kilobyte
/// and moves through several hands.
pub(crate) struct ModelBody<T>(pub(crate) Box<T>, pub(crate) Map<String, Value>);

impl<T: DeserializeOwned> FromRequest<AppState> for ModelBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (caller, bytes, _memory) = arrive(request, state).await?;
        let clear = caller.check_body(&bytes)?;
        let (value, extra) = match declaring(state, &caller, &bytes) {
            Some(model) => {
                let declared = declared(&model).concat();
                wire::extra::parse_with(&bytes, &declared)?
            }
            None => (Box::new(wire::fields::parse(&bytes)?), Map::new()),
        };
        if clear { Ok(Self(value, extra)) } else { Err(caller.unclear().into()) }
    }
}

/// The model that a body names, when it has parameters of its own.
fn declaring(state: &AppState, caller: &Caller, bytes: &[u8]) -> Option<ModelHandle> {
    let named = named(bytes)?;
    caller.check(&named).ok()?;
    let model = state.runtime.model(&named).ok()?;
    let declares = declared(&model).iter().any(|names| !names.is_empty());
    declares.then_some(model)
}

/// The parameters of its own that a model has for each of its tasks.
fn declared(model: &ModelHandle) -> [&[&'static str]; 3] {
    [
        model.chat.as_ref().map(|chat| chat.extra_parameters()).unwrap_or_default(),
        model.embed.as_ref().map(|embed| embed.extra_parameters()).unwrap_or_default(),
        model.rerank.as_ref().map(|rerank| rerank.extra_parameters()).unwrap_or_default(),
    ]
}

/// The first `model` of a body, found without reading on behind it. Whether it is the only one is seen when everything is
/// read.
fn named(bytes: &[u8]) -> Option<Cow<'_, str>> {
    struct First<'f, 'a>(&'f mut Option<Cow<'a, str>>);

    impl<'de> Visitor<'de> for First<'_, 'de> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
            while let Some(Text(name)) = fields.next_key()? {
                if name == "model" {
                    *self.0 = Some(fields.next_value::<Text<'de>>()?.0);
                    return Ok(());
                }
                fields.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // What follows the name makes no difference, and is an error of this reader alone.
    let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(First(&mut found));
    found
}

/// Who sends a body, and its bytes, in time. The permit stands for them in memory.
async fn arrive(
    request: Request,
    state: &AppState,
) -> Result<(Caller, Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    let (parts, body) = request.into_parts();
    let deadline = Instant::now() + state.timeouts.body;
    let Ok(outcome) = timeout_at(deadline, read(&parts.headers, body, state.body_memory.clone())).await
    else {
        let seconds = state.timeouts.body.as_secs();
        let message = format!("the request's body did not arrive within {seconds} s");
        return Err(ApiError::http(StatusCode::REQUEST_TIMEOUT, "request_timeout", message));
    };
    let (bytes, memory) = outcome?;
    Ok((Caller::of(&parts.extensions)?, bytes, memory))
}

/// Reads a body. The permit stands for its bytes in memory.
async fn read(
    headers: &HeaderMap,
    body: Body,
    memory: Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let waits = headers.contains_key(EXPECT);
    let mut frames = body.into_data_stream();
    if length.is_some_and(|length| length > limits::BODY_BYTES as u64) {
        if !waits {
            discard(&mut frames).await;
        }
        return Err(too_large());
    }
    let expected = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut permit: Option<OwnedSemaphorePermit> = None;
    // A client that announces much and sends little must not make us allocate.
    let mut bytes = BytesMut::with_capacity(expected.min(64 << 10));
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| {
            let failure =
                ApiError::http(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended too early");
            ApiError { error: failure.error.with_source(error), ..failure }
        })?;
        if bytes.len() + frame.len() > limits::BODY_BYTES {
            drop((bytes, permit));
            discard(&mut frames).await;
            return Err(too_large());
        }
        let size = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let Ok(more) = memory.clone().try_acquire_many_owned(size) else {
            let message = "the server holds too many large requests; try again later";
            let error = ApiError::http(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
            return Err(error.retry_after(Duration::from_secs(1)));
        };
        match &mut permit {
            Some(permit) => permit.merge(more),
            None => permit = Some(more),
        }
        bytes.extend_from_slice(&frame);
    }
    Ok((bytes.freeze(), permit))
}

/// Reads and forgets, so that a client that writes before it reads sees the refusal.
async fn discard(frames: &mut axum::body::BodyDataStream) {
    let mut seen = 0;
    while let Some(Ok(frame)) = frames.next().await {
        seen += frame.len();
        if seen > limits::REFUSED_BODY_BYTES {
            return;
        }
    }
}

fn too_large() -> ApiError {
    let limit = limits::BODY_BYTES >> 20;
    let message =
        format!("the request's body exceeds {limit} MiB; send less text, or fewer prompts per call");
    ApiError::http(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}
