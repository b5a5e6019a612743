//! `POST /v1/completions`.

use axum::extract::State;
use axum::response::Response;
use byzerllm_core::{ChatRequest, ChatResponse, RequestId, Result};
use byzerllm_runtime::Runtime;
use futures::stream::{self, StreamExt};
use tracing::Instrument;

use super::Wish;
use crate::answer;
use crate::body::ModelBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::chat_answer::Head;
use crate::wire::completions::CompletionBody;
use crate::wire::completions_answer::{CompletionAnswer, CompletionChunks};
use crate::wire::notes::Notes;
use crate::{limits, sse};

/// Continues one or several prompts, as a whole or as a stream.
pub(crate) async fn create(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    ModelBody(body, extra): ModelBody<CompletionBody>,
) -> Result<Response, ApiError> {
    let asked = body.into_requests(&extra)?;
    let caller = caller.allowing(wish.takeover_of_stream(asked.stream)?);
    let id = wish.id;
    let batch = asked.request;
    let head = Head::new(format!("cmpl-{id}"), "text_completion", batch.model);
    let logprobs = batch.requests.first().and_then(|request| request.sampling.logprobs);
    let prompts = batch.requests.len();
    if asked.stream {
        let (events, notes) = sse::begun(interleaved(&state.runtime, &caller, &id, batch.requests)).await?;
        let encoder = CompletionChunks::new(head, prompts, batch.n, logprobs, asked.include_usage);
        return Ok(sse::with_notes(sse::encoded(events, encoder), &notes));
    }
    let (responses, notes) = folded(&state.runtime, &caller, &id, batch.requests).await?;
    let answer = answer::json(&CompletionAnswer::new(head, responses, logprobs, notes.clone())?)?;
    Ok(sse::with_notes(answer, &notes))
}

/// The id of one prompt's share of a request.
fn part(id: &RequestId, prompt: usize, prompts: usize) -> RequestId {
    if prompts == 1 { id.clone() } else { RequestId(format!("{id}-{prompt}")) }
}

/// The events of all prompts as they come.
fn interleaved(
    runtime: &Runtime,
    caller: &Caller,
    id: &RequestId,
    requests: Vec<ChatRequest>,
) -> sse::Events {
    let prompts = requests.len();
    let streams = requests.into_iter().enumerate().map(|(prompt, request)| {
        let (runtime, caller, id) = (runtime.clone(), caller.clone(), part(id, prompt, prompts));
        let opened = async move {
            match runtime.chat(caller.context(id), request).await {
                Ok(events) => events,
                Err(error) => stream::once(std::future::ready(Err(caller.shown(error)))).boxed(),
            }
        }
        // Later prompts start after the headers are out.
        .in_current_span();
        stream::once(opened).flatten().map(move |event| (prompt, event)).boxed()
    });
    let streams: Vec<sse::Events> = streams.collect();
    stream::iter(streams).flatten_unordered(limits::PROMPTS_AT_ONCE).boxed()
}

/// The whole answers to all prompts, in order. The first failure ends the others.
async fn folded(
    runtime: &Runtime,
    caller: &Caller,
    id: &RequestId,
    requests: Vec<ChatRequest>,
) -> Result<(Vec<ChatResponse>, Notes)> {
    let prompts = requests.len();
    let answers = requests.into_iter().enumerate().map(|(prompt, request)| {
        let (runtime, caller, id) = (runtime.clone(), caller.clone(), part(id, prompt, prompts));
        async move { (prompt, answer(&runtime, &caller, id, request).await) }
    });
    let mut running = stream::iter(answers).buffer_unordered(limits::PROMPTS_AT_ONCE);
    let mut responses = Vec::with_capacity(prompts);
    while let Some((prompt, response)) = running.next().await {
        responses.push((prompt, response?));
    }
    responses.sort_unstable_by_key(|(prompt, _)| *prompt);
    let mut notes = Notes::default();
    let responses = responses.into_iter().map(|(_, (response, more))| {
        notes.join(more);
        response
    });
    Ok((responses.collect(), notes))
}

async fn answer(
    runtime: &Runtime,
    caller: &Caller,
    id: RequestId,
    request: ChatRequest,
) -> Result<(ChatResponse, Notes)> {
    sse::folded(runtime.chat(caller.context(id), request).await?).await
}
