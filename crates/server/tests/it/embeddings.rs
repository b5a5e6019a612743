//! `/v1/embeddings`.

use serde_json::{Value, json};

use crate::support::App;

#[tokio::test]
async fn inputs_of_every_form() {
    let app = App::answering("x").await;
    let answer = app.post("/v1/embeddings", json!({"model": "chat", "input": "a b"})).await.ok();
    insta::assert_json_snapshot!("embedding", answer);
    let data = |answer: &Value| answer["data"].as_array().unwrap().clone();
    let several =
        app.post("/v1/embeddings", json!({"model": "chat", "input": ["a b", "c", "a b"]})).await.ok();
    assert_eq!(data(&several).len(), 3);
    assert_eq!(several["data"][0]["embedding"], several["data"][2]["embedding"]);
    assert_ne!(several["data"][0]["embedding"], several["data"][1]["embedding"]);
    assert_eq!(several["data"][2]["index"], 2);
    assert_eq!(several["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    let ids = app.post("/v1/embeddings", json!({"model": "chat", "input": [1, 2, 3]})).await.ok();
    assert_eq!((data(&ids).len(), &ids["usage"]["prompt_tokens"]), (1, &json!(3)));
    let lists = app.post("/v1/embeddings", json!({"model": "chat", "input": [[1, 2, 3], [4]]})).await.ok();
    assert_eq!(lists["data"][0]["embedding"], ids["data"][0]["embedding"]);
    let short =
        json!({"model": "chat", "input": "a", "dimensions": 2, "user": "u", "encoding_format": "base64"});
    let short = app.post("/v1/embeddings", short).await.ok();
    let bytes = short["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(bytes.len(), 12, "eight bytes in base64: {bytes}");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let app = App::answering("x").await;
    let many: Vec<&str> = vec!["a"; 2049];
    for (body, code, param) in [
        (json!({"input": "a"}), "invalid_request", "model"),
        (json!({"model": "chat"}), "invalid_request", "input"),
        (json!({"model": "chat", "input": []}), "invalid_request", "input"),
        (json!({"model": "chat", "input": ""}), "invalid_request", "input"),
        (json!({"model": "chat", "input": ["a", ""]}), "invalid_request", "input[1]"),
        (json!({"model": "chat", "input": [[1], []]}), "invalid_request", "input[1]"),
        (json!({"model": "chat", "input": ["a", 1]}), "invalid_request", "input[1]"),
        (json!({"model": "chat", "input": {"a": 1}}), "invalid_request", "input"),
        (json!({"model": "chat", "input": many}), "invalid_request", "input"),
        (json!({"model": "chat", "input": "a", "dimensions": 0}), "invalid_request", "dimensions"),
        (
            json!({"model": "chat", "input": "a", "encoding_format": "int8"}),
            "invalid_request",
            "encoding_format",
        ),
        (json!({"model": "chat", "input": "a", "dimension": 3}), "invalid_request", "dimension"),
    ] {
        let (status, got, found, message) = app.post("/v1/embeddings", &body).await.error();
        assert_eq!((status, found.as_str()), (400, code), "{message}");
        assert!(got.as_deref().is_some_and(|got| got.starts_with(param)), "{body}: {got:?}: {message}");
    }
    let (status, ..) = app.post("/v1/embeddings", json!({"model": "none", "input": "a"})).await.error();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_model_without_vectors_says_so() {
    let (_, app) = crate::played::Played::new(crate::played::rich).serve().await;
    let (status, _, code, message) =
        app.post("/v1/embeddings", json!({"model": "chat", "input": "a"})).await.error();
    assert_eq!((status, code.as_str()), (400, "unsupported"), "{message}");
}
