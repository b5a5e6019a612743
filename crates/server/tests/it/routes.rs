//! Every route and method, against a list that is written down here.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use byzerllm_server::{Access, routes};

use crate::support::{App, request};

/// What only the admin token and keys with the scope `metrics` or `admin` reach.
const METRICS: &[(&str, &str)] = &[("GET", "/metrics")];

/// What answers without a credential. A new route must be added here, or to the admin list, by hand.
const PUBLIC: &[(&str, &str)] = &[
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/health"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{id}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/rerank"),
    ("POST", "/v2/rerank"),
    ("POST", "/rerank"),
    ("POST", "/v1/score"),
    ("POST", "/score"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/byzerllm/v1/chat"),
    ("POST", "/byzerllm/v1/template"),
    ("POST", "/byzerllm/v1/tokenize"),
    ("GET", "/byzerllm/v1/models/{name}"),
];

const ADMIN: &[(&str, &str)] = &[
    ("GET", "/byzerllm/v1/deployments"),
    ("POST", "/byzerllm/v1/deployments"),
    ("GET", "/byzerllm/v1/deployments/{name}/adapters"),
    ("POST", "/byzerllm/v1/deployments/{name}/adapters"),
    ("DELETE", "/byzerllm/v1/deployments/{name}/adapters/{adapter}"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("GET", "/byzerllm/v1/keys"),
    ("POST", "/byzerllm/v1/keys"),
    ("POST", "/byzerllm/v1/keys/{name}/rotate"),
    ("DELETE", "/byzerllm/v1/keys/{name}"),
    ("GET", "/byzerllm/v1/usage"),
    ("GET", "/byzerllm/v1/budgets"),
    ("POST", "/byzerllm/v1/budgets"),
    ("DELETE", "/byzerllm/v1/budgets/{id}"),
    ("GET", "/byzerllm/v1/prices"),
    ("POST", "/byzerllm/v1/prices"),
    ("DELETE", "/byzerllm/v1/prices/{id}"),
    ("GET", "/byzerllm/v1/deployments/{name}"),
    ("DELETE", "/byzerllm/v1/deployments/{name}"),
    ("POST", "/byzerllm/v1/inspect"),
];

#[tokio::test]
async fn every_route_and_method_is_on_a_list() {
    let lists = [("open", PUBLIC), ("admin", ADMIN), ("metrics", METRICS)];
    let listed: BTreeSet<(String, &str, &str)> = lists
        .iter()
        .flat_map(|(class, list)| {
            list.iter().map(move |(method, path)| ((*method).to_owned(), *path, *class))
        })
        .collect();
    let class = |access| match access {
        Access::Public | Access::Inference => "open",
        Access::Admin => "admin",
        Access::Metrics => "metrics",
    };
    let real: BTreeSet<(String, &str, &str)> = routes()
        .into_iter()
        .map(|route| (route.method.to_string(), route.path, class(route.access)))
        .collect();
    assert_eq!(real, listed);

    // And the router does what the table says: without a credential, every method on every path.
    let app = App::answering("hello").await;
    let paths: BTreeSet<&str> = routes().into_iter().map(|route| route.path).collect();
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"];
    for path in paths {
        for name in methods {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            let concrete =
                path.replace("{id}", "chat").replace("{name}", "chat").replace("{adapter}", "french");
            let mut request = request(method, &concrete, Body::from("{}"));
            request.headers_mut().insert("content-type", "application/json".parse().unwrap());
            let status = app.send(request).await.status;
            let asked = if name == "HEAD" { "GET" } else { name };
            if ADMIN.iter().chain(METRICS).any(|(_, closed)| *closed == path) {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{name} {path}");
            } else if PUBLIC.contains(&(asked, path)) {
                assert!(
                    status == StatusCode::OK || status == StatusCode::BAD_REQUEST,
                    "{name} {path}: {status}"
                );
            } else {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{name} {path}");
            }
        }
    }
    assert_eq!(app.runtime.list().len(), 1, "nothing was deployed or removed");
}

#[tokio::test]
async fn unknown_paths_and_methods_get_openai_shaped_errors() {
    let app = App::answering("hello").await;
    let (status, _, code, message) = app.get("/v2/nothing").await.error();
    assert_eq!((status, code.as_str()), (404, "unknown_route"));
    assert!(message.contains("GET /v2/nothing"), "{message}");
    let answer = app.get("/v1/chat/completions").await;
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(answer.error().2, "method_not_allowed");
    for path in ["/", "/v1", "/v1/", "/v1/models/", "/byzerllm/v1/deployments/", "/V1/models", "//v1/models"]
    {
        assert_eq!(app.get(path).await.status, 404, "{path}");
    }
    // A path segment that is no UTF-8 is axum's own refusal, in our words.
    assert_eq!(app.get("/v1/models/%ff").await.error().0, 400);
}

#[tokio::test]
async fn health_models_and_request_ids() {
    let app = App::answering("hello").await;
    assert_eq!(app.get("/healthz").await.ok()["status"], "alive");
    assert_eq!(app.get("/readyz").await.ok()["status"], "ready");
    let healthy = app.get("/health").await;
    assert_eq!((healthy.status.as_u16(), healthy.text.as_str()), (200, ""));
    assert_eq!(app.get("/version").await.ok()["version"], env!("CARGO_PKG_VERSION"));
    app.loader.set_stuck(true);
    let (status, _, code, _) = app.get("/readyz").await.error();
    assert_eq!((status, code.as_str()), (503, "unavailable"));
    assert_eq!(app.get("/healthz").await.status, 200);

    let list = app.get("/v1/models").await;
    let created = app.runtime.status("chat").unwrap().created;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&list.text).unwrap(),
        serde_json::json!({"object": "list", "data": [
            {"id": "chat", "object": "model", "created": created, "owned_by": "byzerllm"}]})
    );
    assert_eq!(app.get("/v1/models/chat").await.ok()["id"], "chat");
    let (status, _, code, message) = app.get("/v1/models/gpt-4").await.error();
    assert_eq!((status, code.as_str()), (404, "not_found"));
    assert!(message.contains("gpt-4") && message.contains("chat"), "{message}");

    let (one, other) = (app.get("/healthz").await, app.get("/nothing").await);
    assert_eq!(one.header("x-request-id").unwrap().len(), 32);
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
    assert_eq!(one.header("x-content-type-options"), Some("nosniff"));
}
