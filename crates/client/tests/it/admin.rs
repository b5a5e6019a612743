//! Admin routes, errors, and what is sent where.

use std::time::Duration;

use byzerllm_client::Client;
use byzerllm_core::{Error, ErrorKind, Message, Role};
use futures::future::join;
use serde_json::json;

use crate::{answer, answer_json, listen};

#[tokio::test]
async fn every_call_reaches_its_route_with_the_token() {
    let (listener, url) = listen().await;
    let client = Client::new(&format!("{url}/"), Some("secret".to_owned())).unwrap();
    assert_eq!(client.url(), url);
    assert!(!format!("{client:?}").contains("secret"));

    let status = json!({"spec": {"name": "a b"}, "state": "ready"});
    let (got, seen) =
        join(client.deploy(&json!({"name": "chat"})), answer_json(&listener, "200 OK", &status)).await;
    assert_eq!(got.unwrap(), status);
    assert!(seen.head.starts_with("POST /byzerllm/v1/deployments HTTP/1.1"), "{}", seen.head);
    assert!(seen.head.to_lowercase().contains("authorization: bearer secret"));
    assert!(seen.head.to_lowercase().contains("content-type: application/json"));
    assert_eq!(seen.body, r#"{"name":"chat"}"#);

    let (got, seen) = join(client.status("聊/天"), answer_json(&listener, "200 OK", &status)).await;
    got.unwrap();
    assert!(seen.head.starts_with("GET /byzerllm/v1/deployments/%E8%81%8A%2F%E5%A4%A9 "), "{}", seen.head);

    let (got, seen) = join(
        client.undeploy("chat", Some(Duration::from_millis(1500))),
        answer(&listener, "204 No Content", "text/plain", ""),
    )
    .await;
    got.unwrap();
    assert!(seen.head.starts_with("DELETE /byzerllm/v1/deployments/chat?drain_seconds=2 "), "{}", seen.head);

    for body in [json!([status]), json!({"deployments": [status]})] {
        let (got, _) = join(client.list(), answer_json(&listener, "200 OK", &body)).await;
        assert_eq!(got.unwrap(), std::slice::from_ref(&status));
    }

    let (got, seen) =
        join(client.inspect("/a/b".as_ref()), answer_json(&listener, "200 OK", &json!({"format": "gguf"})))
            .await;
    assert_eq!(got.unwrap()["format"], "gguf");
    assert_eq!(seen.body, r#"{"path":"/a/b"}"#);

    let (got, seen) = join(client.model("chat"), answer_json(&listener, "200 OK", &json!({"info": 1}))).await;
    assert_eq!(got.unwrap()["info"], 1);
    assert!(seen.head.starts_with("GET /byzerllm/v1/models/chat "), "{}", seen.head);

    let messages = [Message::new(Role::User, "hi")];
    let (got, seen) = join(
        client.apply_template("chat", &messages, true),
        answer_json(&listener, "200 OK", &json!({"text": "<hi>"})),
    )
    .await;
    assert_eq!(got.unwrap(), "<hi>");
    assert!(seen.body.contains(r#""add_generation_prompt":true"#), "{}", seen.body);

    let (got, _) =
        join(client.tokenize("chat", "hi"), answer_json(&listener, "200 OK", &json!({"ids": [1, 2]}))).await;
    assert_eq!(got.unwrap(), [1, 2]);

    let (got, seen) = join(client.healthy(), answer(&listener, "200 OK", "text/plain", "ok")).await;
    got.unwrap();
    assert!(seen.head.starts_with("GET /healthz "), "{}", seen.head);
}

#[tokio::test]
async fn the_servers_own_error_comes_back_whole() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    let original = Error::invalid("model", "no such tensor").with_retry_after(Duration::from_millis(1500));
    let body = json!({"error": {"message": "no such tensor", "type": "x"}, "detail": original});
    let (got, _) = join(client.deploy(&json!({})), answer_json(&listener, "400 Bad Request", &body)).await;
    let error = got.unwrap_err();
    assert_eq!(
        (error.kind(), error.message(), error.param()),
        (original.kind(), original.message(), Some("model"))
    );
    assert_eq!(error.retry_after(), original.retry_after());
}

#[tokio::test]
async fn a_strangers_error_is_read_as_well_as_may_be() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    for (status, body, kind, part) in [
        (
            "429 Too Many Requests",
            r#"{"error": {"message": "slow down"}}"#,
            ErrorKind::Overloaded,
            "slow down",
        ),
        ("404 Not Found", r#"{"error": "no model"}"#, ErrorKind::NotFound, "no model"),
        ("500 Oops", "<html>", ErrorKind::Upstream, "status 500"),
        ("302 Found", "", ErrorKind::Upstream, "status 302"),
        ("200 OK", "<html>", ErrorKind::Upstream, "not JSON"),
    ] {
        let (got, _) = join(client.status("x"), answer(&listener, status, "text/html", body)).await;
        let error = got.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_missing_server_is_said_so_with_the_remedy() {
    let (listener, url) = listen().await;
    drop(listener);
    let client = Client::new(&url, None).unwrap();
    for error in [client.healthy().await.unwrap_err(), client.list().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.message(), format!("no server at {url}; start one with `byzerllm serve`"));
    }
}

/// The test above, in a process whose environment names a proxy that does not exist.
#[test]
fn a_proxy_from_the_environment_is_not_asked_for_this_machine() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "admin::every_call_reaches_its_route_with_the_token"])
        .envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, "http://127.0.0.1:1")))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}
