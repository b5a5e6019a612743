//! `POST /v1/chat/completions`.

use axum::extract::State;
use axum::response::Response;
use byzerllm_core::Takeover;

use super::Wish;
use crate::answer;
use crate::body::ModelBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::sse;
use crate::state::AppState;
use crate::wire::chat::ChatBody;
use crate::wire::chat_answer::{ChatAnswer, ChatChunks, Head};

/// Answers a conversation, as a whole or as a stream.
pub(crate) async fn create(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<ChatBody>,
) -> Result<Response, ApiError> {
    let asked = body.into_request(extra)?;
    let id = wish.id.clone();
    let name = ["chatcmpl-", &id.0].concat();
    let (model, n) = (asked.request.model.clone(), asked.request.n);
    let takeover = wish.takeover(if asked.stream { Takeover::Continue } else { Takeover::Restart })?;
    let events = state.runtime.chat(caller.allowing(takeover).context(id), asked.request).await?;
    if asked.stream {
        let head = Head::new(name, "chat.completion.chunk", model);
        let (events, notes) = sse::begun(sse::alone(events)).await?;
        let encoder = ChatChunks::new(head, n, asked.include_usage, takeover == Takeover::Restart);
        return Ok(sse::with_notes(sse::encoded(events, encoder), &notes));
    }
    let head = Head::new(name, "chat.completion", model);
    let (response, notes) = sse::folded(events).await?;
    let answer = answer::json(&ChatAnswer::new(head, response, notes.clone())?)?;
    Ok(sse::with_notes(answer, &notes))
}
