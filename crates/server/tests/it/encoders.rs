//! Embedding models and rerankers of our own engine over HTTP: sixty-four clients at once, long inputs, tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use byzerllm_runtime::{DeploymentSpec, Runtime, RuntimeOptions};
use byzerllm_server::{Timeouts, router};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::listening;
use crate::support::{Answer, options, request};

/// For what must happen at all, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

async fn runtime() -> Runtime {
    let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures/encoders"));
    let fixtures = fixtures.canonicalize().unwrap();
    let options = RuntimeOptions { threads: Some(2), ..RuntimeOptions::default() };
    let runtime = Runtime::open(options).await.unwrap();
    runtime.deploy(DeploymentSpec::new("emb", fixtures.join("bert-mean"))).await.unwrap();
    runtime.deploy(DeploymentSpec::new("rr", fixtures.join("xlm-roberta-rank-bf16"))).await.unwrap();
    runtime
}

async fn ask(runtime: &Runtime, path: &str, body: Value) -> Answer {
    use tower::ServiceExt;
    let asked = request(axum::http::Method::POST, path, axum::body::Body::from(body.to_string()));
    let response = router(runtime.clone(), &options()).oneshot(asked).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

#[tokio::test]
async fn texts_and_tokens_in_every_form() {
    let runtime = runtime().await;
    let long = "the capital of France is Paris ".repeat(20);
    let two =
        ask(&runtime, "/v1/embeddings", json!({"model": "emb", "input": ["Paris", "hello"]})).await.ok();
    assert_eq!(two["data"][1]["embedding"].as_array().unwrap().len(), 32);
    let packed = json!({"model": "emb", "input": "Paris", "encoding_format": "base64"});
    let packed = ask(&runtime, "/v1/embeddings", packed).await.ok();
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), 172);
    let ids = json!({"model": "emb", "input": [[101, 9], [74]]});
    assert_eq!(ask(&runtime, "/v1/embeddings", ids).await.ok()["usage"]["prompt_tokens"], 4 + 3);
    let query = json!({"model": "emb", "input": "Paris", "prompt_name": "query", "normalize": true});
    assert_ne!(ask(&runtime, "/v1/embeddings", query).await.ok()["data"][0], two["data"][0]);

    for (body, param) in [
        (json!({"model": "emb", "input": ["Paris", long]}), "input[1]"),
        (json!({"model": "emb", "input": [99999]}), "input"),
        (json!({"model": "emb", "input": "Paris", "dimensions": 8}), "dimensions"),
        (json!({"model": "emb", "input": "Paris", "prompt_name": "quarry"}), "prompt"),
        (json!({"model": "emb", "input": "Paris", "truncate_prompt_tokens": 41}), "max_length"),
    ] {
        let (status, got, code, message) = ask(&runtime, "/v1/embeddings", body).await.error();
        assert_eq!(
            (status, code.as_str(), got.as_deref()),
            (400, "invalid_request", Some(param)),
            "{message}"
        );
    }
    let cut = json!({"model": "emb", "input": [long, "Paris"], "truncate_prompt_tokens": 7});
    let cut = ask(&runtime, "/v1/embeddings", cut).await.ok();
    assert_eq!(cut["byzerllm"]["notices"][0]["to"], 7);
    assert_eq!(cut["byzerllm"]["notices"][0]["input"], 0);

    let pair = json!({"model": "rr", "text_1": "capital", "text_2": ["Paris", long]});
    let (status, param, ..) = ask(&runtime, "/v1/score", pair.clone()).await.error();
    assert_eq!((status, param.as_deref()), (400, Some("text_2[1]")));
    let mut cut = pair;
    cut["truncate"] = json!(true);
    assert_eq!(ask(&runtime, "/v1/score", cut).await.ok()["data"].as_array().unwrap().len(), 2);
    let chat = json!({"model": "emb", "messages": [{"role": "user", "content": "hi"}]});
    let (status, _, code, message) = ask(&runtime, "/v1/chat/completions", chat).await.error();
    assert_eq!((status, code.as_str()), (400, "unsupported"));
    assert!(message.contains("/v1/embeddings"), "{message}");
    let (status, _, code, _) =
        ask(&runtime, "/tokenize", json!({"model": "emb", "prompt": "a"})).await.error();
    assert_eq!((status, code.as_str()), (400, "unsupported"));
    runtime.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn sixty_four_clients_share_steps_and_get_their_own_vectors() {
    let runtime = runtime().await;
    let words = ["Paris", "hello world", "the capital of France", "a small text", "Bananas are yellow."];
    let body = |word: &str| json!({"model": "emb", "input": word}).to_string();
    let mut alone = Vec::new();
    for word in words {
        let answer = ask(&runtime, "/v1/embeddings", json!({"model": "emb", "input": word})).await.ok();
        alone.push(answer["data"].to_string());
    }
    let server = Arc::new(listening::start(&runtime, Timeouts::default(), None, PATIENCE).await);
    let alone = Arc::new(alone);
    let clients = (0..64_usize).map(|client| {
        let (server, alone) = (Arc::clone(&server), Arc::clone(&alone));
        tokio::spawn(async move {
            let mut stream = server.connect().await;
            for round in 0..6 {
                let place = (client + round) % words.len();
                let asked = server.post("/v1/embeddings", &body(words[place]));
                stream.write_all(asked.as_bytes()).await.unwrap();
                let text = listening::read(&mut stream, "total_tokens\":", PATIENCE).await;
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                let data = text.split_once("\"data\":").unwrap().1.split_once(",\"model\"").unwrap().0;
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(data.to_string(), alone[place]);
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }
    let numbers = runtime.metrics();
    let engine = numbers.iter().find(|numbers| numbers.deployment == "emb").unwrap().engine.unwrap();
    assert_eq!((engine.requests, engine.waiting, engine.running), (5 + 64 * 6, 0, 0));
    let Ok(server) = Arc::try_unwrap(server) else { panic!("the clients are gone") };
    server.stop().await;
    runtime.shutdown(PATIENCE).await;
}
