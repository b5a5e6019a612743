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
async fn a_vendors_model_is_deployed_and_its_secrets_are_not_shown() {
    let app = App::answering("hello").await;
    let deploy = |parameters: Value| json!({"name": "gpt", "provider": {"vendor": "saas/openai", "parameters": parameters}, "limits": {"concurrency": 4}});
    let parameters =
        json!({"api_key": "sk-canary", "base_url": "http://127.0.0.1:9/v1", "timeout": 30, "verify": false});
    let status = app.admin(Method::POST, DEPLOYMENTS, deploy(parameters)).await.ok();
    let shown = json!({
        "vendor": "openai",
        "parameters": {
            "api_key": "***", "base_url": "http://127.0.0.1:9/v1", "https_verify": "false", "timeout": "30"
        }
    });
    assert_eq!((&status["state"], &status["spec"]["provider"]), (&json!("ready"), &shown));
    assert!(status["spec"].get("model").is_none(), "{status}");
    for answer in [
        app.admin(Method::GET, DEPLOYMENTS, "").await,
        app.admin(Method::GET, "/byzerllm/v1/deployments/gpt", "").await,
        app.get("/byzerllm/v1/models/gpt").await,
        app.get("/openapi.json").await,
    ] {
        assert!(answer.status.is_success() && !answer.text.contains("canary"), "{}", answer.text);
    }
    for (parameters, param, words) in [
        (json!({"api_kye": "sk-canary"}), "saas.api_kye", "did you mean 'saas.api_key'"),
        (json!({"api_key": "***"}), "saas.api_key", "in place of a secret"),
        (json!({"api_key": "env:BYZERLLM_TEST_NO_SUCH_VARIABLE"}), "saas.api_key", "no such variable"),
        (json!({"api_key": "sk-canary", "timeout": -1}), "saas.timeout", "seconds"),
        (
            json!({"api_key": ["sk-canary"]}),
            "provider.parameters.api_key",
            "a text, a number or true or false",
        ),
    ] {
        let answer = app.admin(Method::POST, DEPLOYMENTS, deploy(parameters)).await;
        let (status, got, _, message) = answer.error();
        assert_eq!((status, got.as_deref()), (400, Some(param)), "{message}");
        assert!(message.contains(words) && !answer.text.contains("canary"), "{}", answer.text);
    }
    let unknown = json!({"name": "x", "provider": {"vendor": "opneai"}});
    let (status, _, _, message) = app.admin(Method::POST, DEPLOYMENTS, unknown).await.error();
    assert!(status == 404 && message.contains("saas/openai"), "{status}: {message}");
    let both = json!({"name": "x", "model": "/", "provider": {"vendor": "openai"}});
    let (status, _, _, message) = app.admin(Method::POST, DEPLOYMENTS, both).await.error();
    assert!(status == 400 && message.contains("one of model, provider and route"), "{status}: {message}");
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
