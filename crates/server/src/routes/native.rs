//! Our own inference routes: the same vocabulary as inside, for our own clients.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use byzerllm_core::{Error, Input, Takeover};

use super::{Wish, blocking};
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::state::AppState;
use crate::wire::native::{
    ModelAnswer, NativeChat, TemplateAnswer, TemplateBody, TokenizeAnswer, TokenizeBody,
};
use crate::wire::{sampling, tools};
use crate::{limits, sse};

/// `POST /byzerllm/v1/chat`.
pub(crate) async fn chat(
    State(state): State<AppState>,
    wish: Wish,
    caller: Caller,
    JsonBody(NativeChat(request)): JsonBody<NativeChat>,
) -> Result<Response, ApiError> {
    sampling::choices(Some(request.n))?;
    sampling::best_of(request.best_of, request.n)?;
    tools::check(&request.tools, &request.tool_choice, "")?;
    if matches!(&request.input, Input::Messages(messages) if messages.len() > limits::MESSAGES) {
        let max = limits::MESSAGES;
        return Err(Error::invalid("input", format!("more than {max} messages")).into());
    }
    let caller = caller.allowing(wish.takeover(Takeover::Restart)?);
    let events = state.runtime.chat(caller.context(wish.id), request).await?;
    Ok(sse::native(sse::begun_alone(events).await?))
}

/// `POST /byzerllm/v1/template`.
pub(crate) async fn template(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<TemplateBody>,
) -> Result<Json<TemplateAnswer>, ApiError> {
    let render =
        move || state.runtime.apply_template(&body.model, &body.messages.0, body.add_generation_prompt);
    Ok(Json(TemplateAnswer { text: blocking(render).await? }))
}

/// `POST /byzerllm/v1/tokenize`.
pub(crate) async fn tokenize(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<TokenizeBody>,
) -> Result<Json<TokenizeAnswer>, ApiError> {
    let ids = blocking(move || state.runtime.tokenize(&body.model, &body.text)).await?;
    Ok(Json(TokenizeAnswer { ids }))
}

/// `GET /byzerllm/v1/models/{name}`.
pub(crate) async fn model(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<ModelAnswer>, ApiError> {
    let status = state.runtime.status(&name)?;
    Ok(Json(ModelAnswer {
        name: status.spec.name,
        info: status.info,
        labels: status.spec.labels,
        created: status.created,
    }))
}
