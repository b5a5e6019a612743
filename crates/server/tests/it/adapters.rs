//! Adapters over HTTP: a tiny real model, our own routes and vLLM's, and who may ask.

use std::path::PathBuf;

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use byzerllm_runtime::{Compute, DeploymentSpec, Runtime, RuntimeOptions};
use byzerllm_server::router;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{TOKEN, options, request};

const ADAPTERS: &str = "/byzerllm/v1/deployments/chat/adapters";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures"))
        .canonicalize()
        .unwrap()
        .join(name)
}

struct Real {
    router: Router,
    runtime: Runtime,
}

impl Real {
    /// With one deployment, `chat`, that has the adapter `patterns`.
    async fn new() -> Self {
        let runtime =
            Runtime::open(RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() }).await.unwrap();
        let mut spec = DeploymentSpec::new("chat", fixture("qwen2-bf16"));
        spec.compute = Compute::Exact;
        spec.adapters.insert("patterns".to_owned(), fixture("adapters/patterns"));
        runtime.deploy(spec).await.unwrap();
        Self { router: router(runtime.clone(), &options()), runtime }
    }

    async fn send(&self, method: Method, path: &str, body: Value, token: Option<&str>) -> (u16, String) {
        let mut request = request(method, path, Body::from(body.to_string()));
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> (u16, String) {
        self.send(method, path, body, Some(TOKEN)).await
    }

    async fn complete(&self, model: &str, token: Option<&str>) -> (u16, String) {
        let body =
            json!({"model": model, "prompt": "hello", "temperature": 0, "max_tokens": 8, "ignore_eos": true});
        let (status, text) = self.send(Method::POST, "/v1/completions", body, token).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        match answer["choices"][0]["text"].as_str() {
            Some(text) => (status, text.to_owned()),
            None => (status, answer["error"]["message"].as_str().unwrap().to_owned()),
        }
    }

    async fn models(&self) -> Vec<(String, Option<String>)> {
        let (_, text) = self.send(Method::GET, "/v1/models", Value::Null, None).await;
        let list: Value = serde_json::from_str(&text).unwrap();
        let model = |model: &Value| {
            (model["id"].as_str().unwrap().to_owned(), model["parent"].as_str().map(str::to_owned))
        };
        list["data"].as_array().unwrap().iter().map(model).collect()
    }
}

#[tokio::test]
async fn adapters_are_asked_listed_loaded_and_unloaded() {
    let app = Real::new().await;
    let (_, base) = app.complete("chat", None).await;
    let (status, patterns) = app.complete("chat:patterns", None).await;
    assert!(status == 200 && base != patterns);
    let loaded = json!({"name": "stable", "path": fixture("adapters/stable")});
    let (status, text) = app.admin(Method::POST, ADAPTERS, loaded.clone()).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["name"], &answer["rank"]), (200, &json!("stable"), &json!(40)), "{text}");
    assert_eq!(app.admin(Method::POST, ADAPTERS, loaded).await.0, 409);
    let parent = Some("chat".to_owned());
    let ids = [("chat", None), ("chat:patterns", parent.clone()), ("chat:stable", parent)];
    assert_eq!(app.models().await, ids.map(|(id, parent)| (id.to_owned(), parent)));
    let (status, text) = app.send(Method::GET, "/v1/models/chat:stable", Value::Null, None).await;
    let model: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &model["parent"]), (200, &json!("chat")), "{text}");
    // Every API asks it by its name.
    let message = json!([{"role": "user", "content": "hello"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "chat:stable", "messages": message, "max_tokens": 4})),
        ("/v1/responses", json!({"model": "chat:stable", "input": "hello", "max_output_tokens": 16})),
        ("/v1/messages", json!({"model": "chat:stable", "messages": message, "max_tokens": 4})),
    ] {
        let (status, text) = app.send(Method::POST, path, body, None).await;
        assert_eq!(status, 200, "{path}: {text}");
    }
    let (status, text) = app.admin(Method::GET, ADAPTERS, Value::Null).await;
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &list[1]["name"], &list[1]["requests"]),
        (200, &json!("stable"), &json!(3)),
        "{text}"
    );
    let (_, page) = app.admin(Method::GET, "/metrics", Value::Null).await;
    let line = "byzerllm_adapter_requests_total{deployment=\"chat\",adapter=\"stable\"} 3";
    assert!(page.contains(line), "{page}");
    let (status, text) = app.admin(Method::DELETE, &format!("{ADAPTERS}/stable"), Value::Null).await;
    assert_eq!((status, text.as_str()), (200, r#"{"deployment":"chat","name":"stable","deleted":true}"#));
    assert_eq!(app.admin(Method::DELETE, &format!("{ADAPTERS}/stable"), Value::Null).await.0, 404);
    let (status, message) = app.complete("chat:stable", None).await;
    assert!(status == 404 && message.contains("patterns"), "{status} {message}");
}

#[tokio::test]
async fn vllms_routes_load_and_unload() {
    let app = Real::new().await;
    let load = |name: &str| json!({"lora_name": name, "lora_path": fixture("adapters/stable")});
    let (status, text) = app.admin(Method::POST, "/v1/load_lora_adapter", load("one")).await;
    assert!(status == 200 && text.contains("'chat:one' added"), "{status} {text}");
    assert_eq!(app.complete("chat:one", None).await.0, 200);
    let unload = json!({"lora_name": "one", "lora_int_id": 1});
    let (status, text) = app.admin(Method::POST, "/v1/unload_lora_adapter", unload.clone()).await;
    assert!(status == 200 && text.contains("removed"), "{status} {text}");
    assert_eq!(app.admin(Method::POST, "/v1/unload_lora_adapter", unload).await.0, 404);
    let in_place = json!({"lora_name": "one", "lora_path": "/x", "load_inplace": true});
    let (status, text) = app.admin(Method::POST, "/v1/load_lora_adapter", in_place).await;
    assert!(status >= 400 && text.contains("load_inplace"), "{status} {text}");
    // With a second deployment a bare name says too little.
    app.runtime.deploy(DeploymentSpec::new("other", fixture("qwen2-bf16"))).await.unwrap();
    let (status, text) = app.admin(Method::POST, "/v1/load_lora_adapter", load("two")).await;
    assert!(status == 400 && text.contains("base_model_name"), "{status} {text}");
    assert_eq!(app.admin(Method::POST, "/v1/load_lora_adapter", load("other:two")).await.0, 200);
    let mut named = load("three");
    named["base_model_name"] = json!("chat");
    assert_eq!(app.admin(Method::POST, "/v1/load_lora_adapter", named).await.0, 200);
    assert_eq!(app.complete("chat:three", None).await.0, 200);
    assert_eq!(app.complete("other:two", None).await.0, 200);
}

#[tokio::test]
async fn a_key_for_a_deployment_may_ask_its_adapters_and_manage_none() {
    let app = Real::new().await;
    let key = |scope: &str| json!({"name": scope.replace(':', "-"), "scopes": [scope]});
    let mut tokens = Vec::new();
    for scope in ["inference:chat", "inference:other"] {
        let (_, text) = app.admin(Method::POST, "/byzerllm/v1/keys", key(scope)).await;
        let key: Value = serde_json::from_str(&text).unwrap();
        tokens.push(key["key"].as_str().unwrap().to_owned());
    }
    assert_eq!(app.complete("chat:patterns", Some(&tokens[0])).await.0, 200);
    assert_eq!(app.complete("chat:patterns", Some(&tokens[1])).await.0, 404);
    let (status, _) = app.send(Method::GET, "/v1/models/chat:patterns", Value::Null, Some(&tokens[0])).await;
    assert_eq!(status, 200);
    let body = json!({"lora_name": "x", "lora_path": "/x"});
    let (status, _) = app.send(Method::POST, "/v1/load_lora_adapter", body, Some(&tokens[0])).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn a_model_that_generates_nothing_has_no_adapters() {
    let runtime =
        Runtime::open(RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() }).await.unwrap();
    runtime.deploy(DeploymentSpec::new("chat", fixture("encoders/bert-mean"))).await.unwrap();
    let real = Real { router: router(runtime.clone(), &options()), runtime };
    assert_eq!(real.admin(Method::GET, ADAPTERS, Value::Null).await, (200, "[]".to_owned()));
    let body = json!({"name": "french", "path": "/"});
    let (status, message) = real.admin(Method::POST, ADAPTERS, body).await;
    assert!(status == 400 && message.contains("no adapters"), "{status} {message}");
    let (status, _) = real.admin(Method::DELETE, &format!("{ADAPTERS}/french"), Value::Null).await;
    assert_eq!(status, 404);
}
