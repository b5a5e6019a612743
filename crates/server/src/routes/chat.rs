//! `POST /v1/chat/completions`.

use axum::Json;
use axum::extract::State;
use axum::http::Extensions;
use axum::response::{IntoResponse, Response};
use byzerllm_core::collect;
use futures::StreamExt;

use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::{ApiError, request_id};
use crate::sse;
use crate::state::AppState;
use crate::wire::chat::ChatBody;
use crate::wire::chat_answer::{ChatAnswer, ChatChunks, Head};

/// Answers a conversation, as a whole or as a stream.
pub(crate) async fn create(
    State(state): State<AppState>,
    extensions: Extensions,
    caller: Caller,
    JsonBody(body): JsonBody<ChatBody>,
) -> Result<Response, ApiError> {
    let asked = body.into_request()?;
    let id = request_id(&extensions);
    let name = format!("chatcmpl-{id}");
    let (model, n) = (asked.request.model.clone(), asked.request.n);
    let events = state.runtime.chat(caller.context(id), asked.request).await?;
    if asked.stream {
        let head = Head::new(name, "chat.completion.chunk", model);
        let events = sse::begun(events.map(|event| (0, event)).boxed()).await?;
        return Ok(sse::openai(events, ChatChunks::new(head, n, asked.include_usage)));
    }
    let head = Head::new(name, "chat.completion", model);
    Ok(Json(ChatAnswer::new(head, collect(events).await?)?).into_response())
}
