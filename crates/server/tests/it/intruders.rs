//! A hostile web page, and another user of the machine.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request};
use byzerllm_server::{Access, routes};
use serde_json::json;

use crate::support::{App, TOKEN, request};

fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    request
}

fn everything() -> Vec<(Method, String, Access)> {
    let routes = routes().into_iter();
    routes
        .map(|route| {
            (route.method, route.path.replace("{id}", "chat").replace("{name}", "chat"), route.access)
        })
        .chain([(Method::GET, "/nothing".to_owned(), Access::Public)])
        .collect()
}

fn prompt() -> Body {
    Body::from(json!({"model": "chat", "prompt": "x"}).to_string())
}

#[tokio::test]
async fn a_web_page_gets_nowhere() {
    let app = App::answering("hello").await;
    for (method, path, _) in everything() {
        let send = |headers: &'static [(&'static str, &'static str)]| {
            let request = request(method.clone(), &path, prompt());
            let token = format!("Bearer {TOKEN}");
            app.send(with(with(request, &[("authorization", &token)]), headers))
        };
        // A page that fetches, or posts a form, even one that has learned the token.
        for origin in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:8000")],
            &[("origin", "https://app.example.evil.example")],
            &[("origin", "https://app.example, https://evil.example")],
            &[("origin", "")],
            &[("origin", "\u{ff}")],
        ] {
            let answer = send(origin).await;
            assert_eq!(answer.status, 403, "{method} {path} {origin:?}");
            assert_eq!(answer.error().2, "origin_refused");
            assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")));
        }
        // A name that the page's owner points at this machine.
        for host in [
            &[("host", "evil.example")][..],
            &[("host", "evil.example:8000")],
            &[("host", "127.0.0.1:9000")],
            &[("host", "localhost")],
            &[("host", "127.0.0.1:8000@evil.example")],
            &[("host", "")],
            &[("host", "\u{ff}")],
        ] {
            let answer = send(host).await;
            assert_eq!(answer.status, 403, "{method} {path} {host:?}");
            assert_eq!(answer.error().2, "host_refused");
        }
    }
    assert!(app.model.requests().is_empty());
    assert_eq!(app.runtime.list().len(), 1);
}

#[tokio::test]
async fn hosts_must_be_there_once_and_agree_with_the_target() {
    let app = App::answering("hello").await;
    let mut bare = request(Method::GET, "/v1/models", Body::empty());
    bare.headers_mut().remove("host");
    assert_eq!(app.send(bare).await.status, 403);
    let mut twice = request(Method::GET, "/v1/models", Body::empty());
    twice.headers_mut().append("host", "evil.example".parse().unwrap());
    assert_eq!(app.send(twice).await.status, 403);
    let absolute = request(Method::GET, "http://evil.example/v1/models", Body::empty());
    assert_eq!(app.send(absolute).await.status, 403);
    let absolute = request(Method::GET, "http://localhost:8000/v1/models", Body::empty());
    assert_eq!(app.send(absolute).await.status, 200);
}

#[tokio::test]
async fn listed_hosts_and_origins_get_in_without_cors() {
    let app = App::answering("hello").await;
    let headers = [("host", "Gateway.Example"), ("origin", "https://app.example")];
    let answer = app.send(with(request(Method::GET, "/v1/models", Body::empty()), &headers)).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    // A listed page still cannot preflight.
    let preflight = with(
        request(Method::OPTIONS, "/v1/completions", Body::empty()),
        &[("origin", "https://app.example"), ("access-control-request-method", "POST")],
    );
    let answer = app.send(preflight).await;
    assert_eq!(answer.status, 405);
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn only_json_bodies_are_read() {
    let app = App::answering("hello").await;
    for (method, path, access) in everything().into_iter().filter(|(method, ..)| *method == Method::POST) {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "text/json",
            "text/plain, application/json",
            "",
        ] {
            let mut request = with(request(method.clone(), &path, prompt()), &[("content-type", kind)]);
            if access == Access::Admin {
                request = with(request, &[("authorization", &format!("Bearer {TOKEN}"))]);
            }
            let answer = app.send(request).await;
            assert_eq!(answer.error().2, "unsupported_media_type", "{path} {kind}");
            assert_eq!(answer.status, 415, "{path} {kind}");
        }
    }
    let mut none = request(Method::POST, "/v1/completions", prompt());
    none.headers_mut().remove("content-type");
    assert_eq!(app.send(none).await.status, 415);
    assert!(app.model.requests().is_empty());
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = with(request(Method::POST, "/v1/completions", prompt()), &[("content-type", kind)]);
        assert_eq!(app.send(request).await.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn another_user_without_the_token_changes_and_sees_nothing() {
    let app = App::answering("hello").await;
    let long = "x".repeat(10_000);
    let admin = everything().into_iter().filter(|(.., access)| *access == Access::Admin);
    for (method, path, _) in admin {
        for credential in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("Basic admin-secret"),
            Some(TOKEN),
            Some(long.as_str()),
        ] {
            let mut request = request(method.clone(), &path, Body::from("{}"));
            if let Some(credential) = credential {
                request.headers_mut().insert("authorization", credential.parse().unwrap());
            }
            let answer = app.send(request).await;
            let (status, _, code, message) = answer.error();
            assert_eq!((status, code.as_str()), (401, "unauthenticated"), "{method} {path} {credential:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(!message.contains("wrong") && !message.contains(TOKEN));
        }
        let mut twice = request(method.clone(), &path, Body::from("{}"));
        for _ in 0..2 {
            twice.headers_mut().append("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        }
        assert_eq!(app.send(twice).await.status, 401, "{method} {path}");
    }
    assert_eq!(app.runtime.list().len(), 1);
    // What exists and what does not look the same.
    let (one, other) =
        (app.get("/byzerllm/v1/deployments/chat").await, app.get("/byzerllm/v1/deployments/none").await);
    assert_eq!(one.text, other.text);
}

#[tokio::test]
async fn inference_takes_any_authorization() {
    let app = App::answering("hello").await;
    for credential in ["Bearer sk-anything", "Basic Zm9v", "simple"] {
        let request =
            with(request(Method::POST, "/v1/completions", prompt()), &[("authorization", credential)]);
        assert_eq!(app.send(request).await.status, 200, "{credential}");
    }
}
