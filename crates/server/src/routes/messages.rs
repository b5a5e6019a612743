//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use byzerllm_core::{Error, ErrorKind};

use super::{Wish, chat_model};
use crate::answer;
use crate::body::ModelBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::sse;
use crate::state::AppState;
use crate::wire::anthropic::answer::{CountAnswer, MessageAnswer};
use crate::wire::anthropic::request::{CountBody, MessagesBody};
use crate::wire::anthropic::stream::MessageEvents;

/// What makes a model go on from a last message of the assistant. A model that does not exist is refused later.
fn continuation(state: &AppState, model: &str) -> Option<&'static str> {
    chat_model(state, model)?.continuation()
}

/// Answers a conversation, as a whole or as a stream.
pub(crate) async fn create(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<MessagesBody>,
) -> Result<Response, ApiError> {
    let continuation = continuation(&state, &body.model);
    let (request, stream) = body.into_request(extra, continuation)?;
    let id = wish.id.clone();
    let (name, model) = (format!("msg_{id}"), request.model.clone());
    let context = caller.allowing(wish.takeover_of_stream(stream)?).context(id);
    let events = state.runtime.chat(context, request).await?;
    if stream {
        let (events, notes) = sse::begun(sse::alone(events)).await?;
        return Ok(sse::with_notes(sse::encoded(events, MessageEvents::new(name, model)), &notes));
    }
    let (response, notes) = sse::folded(events).await?;
    let answer = answer::json(&MessageAnswer::new(name, model, response, notes.clone())?)?;
    Ok(sse::with_notes(answer, &notes))
}

/// Counts the tokens of a conversation's prompt.
pub(crate) async fn count(
    State(state): State<AppState>,
    ModelBody(body, extra): ModelBody<CountBody>,
) -> Result<Json<CountAnswer>, ApiError> {
    let continuation = continuation(&state, &body.model);
    let request = body.into_request(extra, continuation)?;
    let model = state.runtime.model(&request.model)?.chat.ok_or_else(|| {
        let message = format!("'{}' does not generate text", request.model);
        Error::new(ErrorKind::Unsupported, message)
    })?;
    Ok(Json(CountAnswer { input_tokens: model.count_tokens(&request).await? }))
}
