//! `/v1/rerank` and `/v1/score`, under all their names.

use serde_json::{Value, json};

use crate::support::App;

const NAMES: [&str; 3] = ["/v1/rerank", "/v2/rerank", "/rerank"];

fn places(answer: &Value) -> Vec<u64> {
    answer["results"].as_array().unwrap().iter().map(|result| result["index"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_best_documents_come_first() {
    let app = App::answering("x").await;
    let documents = json!(["hi", {"text": "the panda is a bear"}, "what is this"]);
    let body = json!({"model": "chat", "query": "what is panda", "documents": documents});
    for path in NAMES {
        let answer = app.post(path, &body).await.ok();
        assert_eq!(places(&answer), [1, 2, 0], "{path}: {answer}");
        assert_eq!(answer["results"][0]["document"], json!({"text": "the panda is a bear"}));
        assert_eq!(answer["results"][2]["relevance_score"], -3.0);
        assert_eq!(answer["scale"], "logit");
        assert_eq!(answer["meta"]["tokens"]["input_tokens"], answer["usage"]["total_tokens"]);
        assert!(answer["id"].as_str().unwrap().starts_with("rerank-") && answer.get("byzerllm").is_none());
    }
    let few = json!({"model": "chat", "query": {"text": "what is panda"}, "documents": documents, "top_n": 2,
        "return_documents": false, "user": "u"});
    let answer = app.post("/v1/rerank", few).await.ok();
    assert_eq!(places(&answer), [1, 2]);
    assert!(answer["results"][0].get("document").is_none());
    let many = json!({"model": "chat", "query": "a", "documents": ["a"], "top_n": 99});
    assert_eq!(places(&app.post("/v1/rerank", many).await.ok()), [0]);
}

#[tokio::test]
async fn probabilities_are_asked_for_and_declared() {
    let app = App::answering("x").await;
    for more in [json!({"scale": "probability"}), json!({"use_activation": true})] {
        let mut body = json!({"model": "chat", "query": "a b", "documents": ["a b", "c"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = app.post("/v1/rerank", &body).await.ok();
        let score = |place: usize| answer["results"][place]["relevance_score"].as_f64().unwrap();
        assert_eq!(answer["scale"], "probability");
        assert!((score(0) - 0.880_797).abs() < 1e-5 && (score(1) - 0.119_203).abs() < 1e-5, "{answer}");
    }
}

#[tokio::test]
async fn one_text_with_many_or_two_lists_side_by_side() {
    let app = App::answering("x").await;
    let scores = |answer: &Value| -> Vec<f64> {
        answer["data"].as_array().unwrap().iter().map(|row| row["score"].as_f64().unwrap()).collect()
    };
    for path in ["/v1/score", "/score"] {
        let body = json!({"model": "chat", "text_1": "a b", "text_2": ["a b", "c", "a"]});
        let answer = app.post(path, &body).await.ok();
        assert_eq!(scores(&answer), [2.0, -2.0, 0.0]);
        assert_eq!((&answer["object"], &answer["scale"]), (&json!("list"), &json!("logit")));
        assert_eq!(answer["data"][2]["index"], 2);
        assert_eq!(answer["data"][2]["object"], "score");
    }
    let lists = json!({"model": "chat", "text_1": ["a", "b"], "text_2": ["a", "c"]});
    assert_eq!(scores(&app.post("/v1/score", lists).await.ok()), [1.0, -1.0]);
    let pair = json!({"model": "chat", "text_1": "a", "text_2": "a", "use_activation": false});
    assert_eq!(scores(&app.post("/v1/score", pair).await.ok()), [1.0]);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let app = App::answering("x").await;
    let many = vec!["a"; 2049];
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": "chat", "query": "a", "documents": ["a"]});
        body[name] = value;
        body
    };
    for (body, param) in [
        (json!({"query": "a", "documents": ["a"]}), "model"),
        (json!({"model": "chat", "documents": ["a"]}), "query"),
        (json!({"model": "chat", "query": "a"}), "documents"),
        (with("query", json!("")), "query"),
        (with("query", json!(["a"])), "query"),
        (with("query", json!({"txt": "a"})), "query"),
        (with("documents", json!([])), "documents"),
        (with("documents", json!("a")), "documents"),
        (with("documents", json!(["a", 3])), "documents[1]"),
        (with("documents", json!([{"text": "a", "image": "b"}])), "documents[0]"),
        (with("documents", json!(many)), "documents"),
        (with("top_n", json!(0)), "top_n"),
        (with("top_n", json!(-1)), "top_n"),
        (with("scale", json!("percent")), "scale"),
        (with("truncate_prompt_tokens", json!(0)), "truncate_prompt_tokens"),
        (with("max_tokens_per_doc", json!(10)), "max_tokens_per_doc"),
        (with("document", json!(["a"])), "document"),
    ] {
        let (status, got, code, message) = app.post("/v1/rerank", &body).await.error();
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{message}");
        assert!(got.as_deref().is_some_and(|got| got.starts_with(param)), "{param}: {got:?}: {message}");
    }
    for (body, param) in [
        (json!({"model": "chat", "text_1": "a"}), "text_2"),
        (json!({"model": "chat", "text_1": [], "text_2": ["a"]}), "text_1"),
        (json!({"model": "chat", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]}), "text_1"),
        (json!({"model": "chat", "text_1": ["a", "b"], "text_2": "a"}), "text_1"),
        (json!({"model": "chat", "text_1": "a", "text_2": [1]}), "text_2[0]"),
        (json!({"model": "chat", "text_1": "a", "text_2": many}), "text_2"),
    ] {
        let (status, got, code, message) = app.post("/v1/score", &body).await.error();
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{message}");
        assert!(got.as_deref().is_some_and(|got| got.starts_with(param)), "{param}: {got:?}: {message}");
    }
    let missing = json!({"model": "none", "query": "a", "documents": ["a"]});
    assert_eq!(app.post("/v1/rerank", missing).await.error().0, 404);
}

#[tokio::test]
async fn a_long_query_times_many_documents_is_refused_before_it_takes_memory() {
    let app = App::answering("x").await;
    let body = json!({"model": "chat", "query": "q".repeat(1 << 20), "documents": vec!["a"; 2000]});
    let (status, param, code, message) = app.post("/v1/rerank", body).await.error();
    assert_eq!((status, code.as_str()), (400, "context_length_exceeded"), "{message}");
    assert_eq!(param.as_deref(), Some("documents"));
}

#[tokio::test]
async fn a_model_that_does_something_else_says_what() {
    let (_, app) = crate::played::Played::new(crate::played::rich).serve().await;
    let body = json!({"model": "chat", "query": "a", "documents": ["a"]});
    let (status, _, code, message) = app.post("/v1/rerank", body).await.error();
    assert_eq!((status, code.as_str()), (400, "unsupported"), "{message}");
    assert!(message.contains("scores") || message.contains("generates text"), "{message}");
    assert!(message.contains("/v1/chat/completions"), "{message}");
}
