//! `POST /v1/responses`.

use axum::extract::State;
use axum::response::Response;

use super::{Wish, chat_model};
use crate::answer;
use crate::body::ModelBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::sse;
use crate::state::AppState;
use crate::wire::responses::answer::{Head, ResponseAnswer};
use crate::wire::responses::request::ResponseBody;
use crate::wire::responses::stream::ResponseEvents;

/// Answers a conversation, as a whole or as a stream.
pub(crate) async fn create(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<ResponseBody>,
) -> Result<Response, ApiError> {
    let model = chat_model(&state, body.model());
    let declared = model.as_ref().map(|model| model.extra_parameters()).unwrap_or_default();
    let asked = body.into_request(extra, declared)?;
    let id = wish.id.clone();
    let head = Head::new(id.clone(), asked.request.model.clone(), asked.echo);
    let context = caller.allowing(wish.takeover_of_stream(asked.stream)?).context(id);
    let events = state.runtime.chat(context, asked.request).await?;
    if asked.stream {
        let (events, notes) = sse::begun(sse::alone(events)).await?;
        return Ok(sse::with_notes(sse::encoded(events, ResponseEvents::new(head)), &notes));
    }
    let (response, notes) = sse::folded(events).await?;
    let answer = answer::json(&ResponseAnswer::new(&head, response, notes.clone())?)?;
    Ok(sse::with_notes(answer, &notes))
}
