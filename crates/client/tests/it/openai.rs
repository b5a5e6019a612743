//! Measuring servers that speak OpenAI's API.

use byzerllm_client::openai::OpenAi;
use byzerllm_core::ErrorKind;
use futures::future::join;
use serde_json::json;

use crate::{answer, answer_json, listen};

async fn chat(body: &str) -> byzerllm_core::Result<byzerllm_client::openai::Timing> {
    let (listener, url) = listen().await;
    let client = OpenAi::new(&url, Some("key".to_owned())).unwrap();
    let request = json!({"model": "m", "messages": []});
    let serve = answer(&listener, "200 OK", "text/event-stream", body);
    let (timing, seen) = join(client.chat(&request), serve).await;
    assert!(seen.head.starts_with("POST /v1/chat/completions "), "{}", seen.head);
    assert!(seen.head.to_lowercase().contains("authorization: bearer key"));
    let sent: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!((&sent["stream"], &sent["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
    timing
}

#[tokio::test]
async fn pieces_usage_and_reason_are_taken() {
    let timing = chat(concat!(
        ": ping\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n",
        "data: [DONE]\n\n",
    ))
    .await
    .unwrap();
    assert_eq!((timing.text.as_str(), timing.finish_reason.as_deref()), ("Hello", Some("stop")));
    assert_eq!((timing.prompt_tokens, timing.completion_tokens, timing.tokens()), (Some(5), Some(3), 3));
    assert_eq!(timing.chunks.len(), 2);
    assert_eq!(timing.first_token(), Some(timing.chunks[0]));
    assert!(timing.chunks[0] <= timing.chunks[1] && timing.chunks[1] <= timing.finished);
}

#[tokio::test]
async fn a_failure_in_the_stream_and_a_cut_stream_are_errors() {
    let error = chat("data: {\"error\":{\"message\":\"out of blocks\"}}\n\n").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upstream);
    assert!(error.message().contains("out of blocks"), "{error}");
    let error =
        chat("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").await.unwrap_err();
    assert!(error.message().contains("before it is complete"), "{error}");
}

#[tokio::test]
async fn models_are_listed_with_or_without_the_version_in_the_url() {
    let (listener, url) = listen().await;
    let body = json!({"object": "list", "data": [{"id": "a"}, {"id": "b"}]});
    for url in [url.clone(), format!("{url}/"), format!("{url}/v1"), format!("{url}/v1/")] {
        let client = OpenAi::new(&url, None).unwrap();
        let (models, seen) = join(client.models(), answer_json(&listener, "200 OK", &body)).await;
        assert_eq!(models.unwrap(), ["a", "b"]);
        assert!(seen.head.starts_with("GET /v1/models HTTP/1.1"), "{}", seen.head);
        assert!(!seen.head.to_lowercase().contains("authorization"));
    }
}
