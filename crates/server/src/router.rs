//! Every route, once, with who may call it.

use axum::extract::{RawPathParams, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{RequestExt, Router};
use byzerllm_runtime::Runtime;

use crate::auth::admit;
use crate::error::{ApiError, finish};
use crate::routes::{
    adapters, admin, budgets, chat, completions, embeddings, health, keys, messages, metrics, models, native,
    openapi, prices, rerank, responses, tokenize, usage,
};
use crate::server::Timeouts;
use crate::state::{AppState, ServerOptions};

/// Who may call a route. Host and Origin are checked before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everyone who reaches the server: says whether it works, nothing else.
    Public,
    /// Who may ask the deployment: a key with a scope for it. On loopback, before the first key, everyone, and any
    /// `Authorization` value is accepted. What such a route has in its path, and in the field `model` of its body,
    /// is a deployment's name and is checked before the handler; what a handler lists it filters itself.
    Inference,
    /// The holder of the admin token, or of a key with the scope `admin`.
    Admin,
    /// The holder of the admin token, or of a key with the scope `metrics` or `admin`.
    Metrics,
}

/// What is public about a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteInfo {
    /// The method; `GET` answers `HEAD` too.
    pub method: Method,
    /// The path in axum's notation.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
}

struct Route {
    info: RouteInfo,
    handler: MethodRouter<AppState>,
}

fn route(method: Method, path: &'static str, access: Access, handler: MethodRouter<AppState>) -> Route {
    Route { info: RouteInfo { method, path, access }, handler }
}

/// The one table. The router is made from nothing else.
fn table() -> Vec<Route> {
    use Access::{Admin, Inference, Metrics, Public};
    let (read, write, remove) = (Method::GET, Method::POST, Method::DELETE);
    vec![
        route(read.clone(), "/healthz", Public, get(health::alive)),
        route(read.clone(), "/readyz", Public, get(health::ready)),
        route(read.clone(), "/health", Public, get(health::healthy)),
        route(read.clone(), "/version", Public, get(health::version)),
        route(read.clone(), "/metrics", Metrics, get(metrics::page)),
        route(read.clone(), "/openapi.json", Public, get(openapi::document)),
        route(read.clone(), "/v1/models", Inference, get(models::list)),
        route(read.clone(), "/v1/models/{id}", Inference, get(models::get)),
        route(write.clone(), "/v1/chat/completions", Inference, post(chat::create)),
        route(write.clone(), "/v1/completions", Inference, post(completions::create)),
        route(write.clone(), "/v1/embeddings", Inference, post(embeddings::create)),
        route(write.clone(), "/v1/rerank", Inference, post(rerank::rerank)),
        route(write.clone(), "/v2/rerank", Inference, post(rerank::rerank)),
        route(write.clone(), "/rerank", Inference, post(rerank::rerank)),
        route(write.clone(), "/v1/score", Inference, post(rerank::score)),
        route(write.clone(), "/score", Inference, post(rerank::score)),
        route(write.clone(), "/v1/responses", Inference, post(responses::create)),
        route(write.clone(), "/v1/messages", Inference, post(messages::create)),
        route(write.clone(), "/v1/messages/count_tokens", Inference, post(messages::count)),
        route(write.clone(), "/tokenize", Inference, post(tokenize::tokenize)),
        route(write.clone(), "/detokenize", Inference, post(tokenize::detokenize)),
        route(write.clone(), "/byzerllm/v1/chat", Inference, post(native::chat)),
        route(write.clone(), "/byzerllm/v1/template", Inference, post(native::template)),
        route(write.clone(), "/byzerllm/v1/tokenize", Inference, post(native::tokenize)),
        route(read.clone(), "/byzerllm/v1/models/{name}", Inference, get(native::model)),
        route(read.clone(), "/byzerllm/v1/deployments", Admin, get(admin::list)),
        route(write.clone(), "/byzerllm/v1/deployments", Admin, post(admin::deploy)),
        route(read.clone(), "/byzerllm/v1/deployments/{name}/adapters", Admin, get(adapters::list)),
        route(write.clone(), "/byzerllm/v1/deployments/{name}/adapters", Admin, post(adapters::load)),
        route(
            remove.clone(),
            "/byzerllm/v1/deployments/{name}/adapters/{adapter}",
            Admin,
            delete(adapters::unload),
        ),
        route(write.clone(), "/v1/load_lora_adapter", Admin, post(adapters::load_lora)),
        route(write.clone(), "/v1/unload_lora_adapter", Admin, post(adapters::unload_lora)),
        route(read.clone(), "/byzerllm/v1/keys", Admin, get(keys::list)),
        route(write.clone(), "/byzerllm/v1/keys", Admin, post(keys::create)),
        route(write.clone(), "/byzerllm/v1/keys/{name}/rotate", Admin, post(keys::rotate)),
        route(remove.clone(), "/byzerllm/v1/keys/{name}", Admin, delete(keys::revoke)),
        route(read.clone(), "/byzerllm/v1/usage", Admin, get(usage::report)),
        route(read.clone(), "/byzerllm/v1/budgets", Admin, get(budgets::list)),
        route(write.clone(), "/byzerllm/v1/budgets", Admin, post(budgets::set)),
        route(remove.clone(), "/byzerllm/v1/budgets/{id}", Admin, delete(budgets::remove)),
        route(read.clone(), "/byzerllm/v1/prices", Admin, get(prices::list)),
        route(write.clone(), "/byzerllm/v1/prices", Admin, post(prices::set)),
        route(remove.clone(), "/byzerllm/v1/prices/{id}", Admin, delete(prices::remove)),
        route(read, "/byzerllm/v1/deployments/{name}", Admin, get(admin::status)),
        route(remove, "/byzerllm/v1/deployments/{name}", Admin, delete(admin::undeploy)),
        route(write, "/byzerllm/v1/inspect", Admin, post(admin::inspect)),
    ]
}

/// Every route that exists.
#[must_use]
pub fn routes() -> Vec<RouteInfo> {
    table().into_iter().map(|route| route.info).collect()
}

/// The service without a socket, for tests and for embedding. [`ServerOptions::address`] gives the port that the
/// `Host` header must name.
pub fn router(runtime: Runtime, options: &ServerOptions) -> Router {
    build(AppState::new(runtime, options, Timeouts::default(), None))
}

pub(crate) fn build(state: AppState) -> Router {
    let mut router = Router::new();
    for Route { info, handler } in table() {
        let gate = from_fn_with_state((state.clone(), info.access), gate);
        router = router.route(info.path, handler.layer(gate));
    }
    router.fallback(unknown).with_state(state)
}

/// What stands before a route: one layer, as each costs every request several allocations.
async fn gate(State((state, access)): State<(AppState, Access)>, request: Request, next: Next) -> Response {
    let shared = &state;
    let answer = async |mut request: Request| match request.extract_parts::<RawPathParams>().await {
        Ok(parameters) => admit(shared, access, &parameters, request, next).await.into_response(),
        Err(refusal) => refusal.into_response(),
    };
    finish(shared, request, answer).await
}

async fn unknown(State(state): State<AppState>, request: Request) -> Response {
    finish(&state, request, async |request: Request| no_route(&request).into_response()).await
}

fn no_route(request: &Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    let path: String = path.chars().take(200).collect();
    let message =
        format!("there is no route {method} {path}; see /v1/models, /v1/chat/completions, /v1/completions");
    ApiError::http(StatusCode::NOT_FOUND, "unknown_route", message)
}
