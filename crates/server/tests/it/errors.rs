//! Errors before and inside answers, and bodies made to hurt.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use bytes::Bytes;
use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{Error, ErrorKind};
use serde_json::{Value, json};

use crate::support::{App, request};

fn hello(stream: bool) -> Value {
    json!({"model": "chat", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
}

#[tokio::test]
async fn each_kind_has_its_status_and_shape() {
    for kind in ErrorKind::ALL {
        let model = ScriptedModel::new("x").refusing(Error::new(kind, "because").with_source("secret"));
        let app = App::with(model).await;
        for stream in [false, true] {
            let answer = app.chat(hello(stream)).await;
            assert_eq!(answer.status.as_u16(), kind.http_status());
            assert_eq!(
                answer.json(),
                json!({"error": {"message": "because", "type": kind.openai_type(), "param": null, "code": kind.code()}})
            );
            assert!(!answer.text.contains("secret"));
        }
        let body = json!({"model": "chat", "prompt": ["a", "b"]});
        assert_eq!(app.complete(&body).await.status.as_u16(), kind.http_status());
    }
}

#[tokio::test]
async fn retry_after_is_whole_seconds() {
    for (kind, after, expected) in [
        (ErrorKind::Overloaded, Some(Duration::from_millis(1500)), Some("2")),
        (ErrorKind::Overloaded, Some(Duration::from_millis(1)), Some("1")),
        (ErrorKind::RateLimited, None, Some("1")),
        (ErrorKind::Unavailable, Some(Duration::from_secs(7)), Some("7")),
        (ErrorKind::Unavailable, None, None),
        (ErrorKind::InvalidRequest, None, None),
    ] {
        let mut error = Error::new(kind, "busy");
        if let Some(after) = after {
            error = error.with_retry_after(after);
        }
        let app = App::with(ScriptedModel::new("x").refusing(error)).await;
        assert_eq!(app.chat(hello(true)).await.header("retry-after"), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn an_error_inside_a_stream_is_its_last_frame() {
    let failure = Error::new(ErrorKind::Unavailable, "the model is gone");
    let app = App::with(ScriptedModel::new("one two three").failing_after(2, failure)).await;
    let expected = json!({"error": {
        "message": "the model is gone", "type": "service_unavailable", "param": null, "code": "unavailable"}});
    for (path, body) in [
        ("/v1/chat/completions", hello(true)),
        ("/v1/completions", json!({"model": "chat", "prompt": "Hi", "stream": true})),
    ] {
        let data = app.post(path, body).await.data();
        let last: Value = serde_json::from_str(data.last().unwrap()).unwrap();
        assert_eq!(last, expected, "{path}");
        assert!(data.iter().all(|data| data != "[DONE]"));
        assert!(data.len() >= 3, "text came before: {data:?}");
    }
    // Folded, the same error is the whole answer.
    assert_eq!(app.chat(hello(false)).await.error().0, 503);
    assert_eq!(app.model.active(), 0);
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_with_the_numbers() {
    let app = App::with(ScriptedModel::new("x").with_context_length(3)).await;
    let body = json!({"model": "chat", "prompt": "a b c d e f", "stream": true});
    let (status, _, code, message) = app.complete(body).await.error();
    assert_eq!((status, code.as_str()), (400, "context_length_exceeded"));
    assert!(message.contains('6') && message.contains('3'), "{message}");
}

#[tokio::test]
async fn hostile_json_is_refused_without_harm() {
    let app = App::answering("x").await;
    let deep = "[".repeat(100_000);
    let objects = r#"{"a":"#.repeat(100_000);
    for body in [
        deep.clone(),
        objects.clone(),
        format!(r#"{{"model":"chat","messages":{deep}"#),
        format!(r#"{{"model":"chat","messages":[],"tools":{deep}"#),
        format!(r#"{{"model":"chat","messages":[],"metadata":{objects}"#),
        format!(r#"{{"model":"chat","messages":[{{"role":"user","content":{deep}"#),
        format!(r#"{{"model":"chat","messages":[{}"#, r#"{"role":"user","content":""},"#.repeat(100_000)),
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        r#"{"model":"chat","model":"chat","messages":[]}"#.to_owned(),
        r#"{"model":"\ud800","messages":[]}"#.to_owned(),
        r#"{"model":"chat","messages":[],"temperature":1e999}"#.to_owned(),
    ] {
        let answer = app.chat(&body).await;
        let (status, _, _, message) = answer.error();
        assert_eq!(status, 400, "{message}");
        assert!(answer.text.len() < 4096, "{}", answer.text.len());
    }
    let invalid = request(Method::POST, "/v1/chat/completions", Body::from(&b"{\"model\": \"\xff\"}"[..]));
    assert_eq!(app.send(invalid).await.status, 400);
    assert!(app.model.requests().is_empty());
}

#[tokio::test]
async fn huge_bodies_are_refused_with_and_without_a_length() {
    let app = App::answering("x").await;
    let huge = Bytes::from(vec![b' '; 50 << 20]);
    for announced in [true, false] {
        let body = match announced {
            true => Body::from(huge.clone()),
            false => {
                let frames: Vec<_> = huge.chunks(1 << 16).map(|frame| huge.slice_ref(frame)).collect();
                Body::from_stream(futures::stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>)))
            }
        };
        let mut request = request(Method::POST, "/v1/completions", body);
        if announced {
            request.headers_mut().insert("content-length", (50_u64 << 20).into());
        }
        let (status, _, code, _) = app.send(request).await.error();
        assert_eq!((status, code.as_str()), (413, "request_too_large"));
    }
    // The largest allowed body is read, and its memory is given back each time.
    let prompt = "a".repeat((16 << 20) - 64);
    for _ in 0..40 {
        let body = json!({"model": "none", "prompt": prompt});
        assert_eq!(app.complete(body).await.status, 404);
    }
}
