//! Deployments come and go over HTTP.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::App;

const DEPLOYMENTS: &str = "/byzerllm/v1/deployments";

#[tokio::test]
async fn deployments_are_made_listed_and_removed() {
    let app = App::answering("hello").await;
    let spec = json!({"name": "second", "model": "/", "defaults": {"temperature": 0.5}, "labels": {"backend": "ray"}});
    let status = app.admin(Method::POST, DEPLOYMENTS, spec).await.ok();
    assert_eq!((&status["state"], &status["spec"]["name"]), (&json!("ready"), &json!("second")));
    let list = app.admin(Method::GET, DEPLOYMENTS, "").await.ok();
    let names: Vec<&Value> = list.as_array().unwrap().iter().map(|status| &status["spec"]["name"]).collect();
    assert_eq!(names, ["chat", "second"]);
    assert_eq!(app.get("/v1/models").await.ok()["data"].as_array().unwrap().len(), 2);
    let one = app.admin(Method::GET, "/byzerllm/v1/deployments/second", "").await.ok();
    assert_eq!(one["spec"]["labels"]["backend"], "ray");

    let model = app.get("/byzerllm/v1/models/second").await.ok();
    assert_eq!(model["labels"], json!({"backend": "ray"}));
    assert_eq!(model["info"]["engine"], "scripted");

    let gone = app.admin(Method::DELETE, "/byzerllm/v1/deployments/second?drain_seconds=0", "").await.ok();
    assert_eq!(gone, json!({"name": "second", "deleted": true}));
    let (status, ..) = app.admin(Method::DELETE, "/byzerllm/v1/deployments/second", "").await.error();
    assert_eq!(status, 404);
    assert_eq!(app.runtime.list().len(), 1);
}

#[tokio::test]
async fn bad_deployments_say_why() {
    let app = App::answering("hello").await;
    for (spec, status, param, words) in [
        (json!({"name": "x"}), 400, Some("model"), "missing"),
        (json!({"name": "x", "model": "/", "modle": 1}), 400, Some("modle"), "did you mean `model`"),
        (
            json!({"name": "x", "model": "/", "limits": {"contxt_length": 1}}),
            400,
            Some("limits.contxt_length"),
            "context_length",
        ),
        (json!({"name": "x", "model": "relative"}), 400, Some("model"), "absolute"),
        (json!({"name": "x", "model": "/no/such/path"}), 404, Some("model"), "/no/such/path"),
        (json!({"name": "broken", "model": "/"}), 400, Some("model"), "not a model"),
    ] {
        let answer = app.admin(Method::POST, DEPLOYMENTS, &spec).await;
        let (got, got_param, _, message) = answer.error();
        assert_eq!((got, got_param.as_deref()), (status, param), "{spec}: {message}");
        assert!(message.contains(words), "{spec}: {message}");
        // Our own clients get the whole error.
        assert_eq!(answer.json()["detail"]["message"], message);
    }
    for query in ["drain_seconds=x", "drain_seconds=-1", "drain_seconds=99999", "drain=3"] {
        let path = format!("{DEPLOYMENTS}/chat?{query}");
        let (status, param, ..) = app.admin(Method::DELETE, &path, "").await.error();
        assert_eq!((status, param.as_deref()), (400, Some("drain_seconds")), "{query}");
    }
    assert_eq!(app.runtime.list().len(), 1);
}

#[tokio::test]
async fn files_are_inspected() {
    let app = App::answering("hello").await;
    let inspection = app.admin(Method::POST, "/byzerllm/v1/inspect", json!({"path": "/"})).await.ok();
    assert_eq!(inspection["format"], "scripted");
    let answer = app.admin(Method::POST, "/byzerllm/v1/inspect", json!({"path": "/none", "x": 1})).await;
    assert_eq!(answer.error().1.as_deref(), Some("x"));
}
