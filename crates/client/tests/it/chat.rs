//! Streams over HTTP.

use byzerllm_client::Client;
use byzerllm_core::{
    ChatRequest, Error, ErrorKind, Event, FinishReason, Input, RequestId, Takeover, Usage, collect,
};
use futures::StreamExt;
use futures::future::join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{STREAM, accept, answer, answer_json, listen};

fn request() -> ChatRequest {
    ChatRequest::new("chat", Input::Text("hi".to_owned()))
}

fn events() -> Vec<Event> {
    vec![
        Event::Started { request_id: RequestId("r1".to_owned()), vendor_request_id: None },
        Event::Text { choice: 0, text: "你好\n\n".to_owned(), logprobs: None },
        Event::Text { choice: 0, text: "!".to_owned(), logprobs: None },
        Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None },
        Event::Usage { usage: Usage { prompt_tokens: 1, completion_tokens: 2, ..Usage::default() } },
    ]
}

fn lines(events: &[Event]) -> String {
    events.iter().map(|event| format!("data: {}\n\n", serde_json::to_string(event).unwrap())).collect()
}

#[tokio::test]
async fn events_arrive_whole_however_the_bytes_are_cut() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    for size in [1, 7, 10_000] {
        let serve = async {
            let (mut stream, seen) = accept(&listener).await;
            assert!(seen.head.starts_with("POST /byzerllm/v1/chat "));
            assert_eq!(serde_json::from_str::<ChatRequest>(&seen.body).unwrap(), request());
            stream.write_all(STREAM.as_bytes()).await.unwrap();
            for piece in lines(&events()).as_bytes().chunks(size) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
            }
        };
        let read =
            async { client.chat(&request()).await.unwrap().map(Result::unwrap).collect::<Vec<_>>().await };
        let (got, ()) = join(read, serve).await;
        assert_eq!(got, events());
    }
}

#[tokio::test]
async fn words_about_a_request_travel_in_its_head() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    for (takeover, no_cache, fields) in [
        (Takeover::Restart, false, &[][..]),
        (Takeover::Continue, false, &["x-byzerllm-takeover: continue"]),
        (Takeover::Never, true, &["x-byzerllm-takeover: never", "cache-control: no-store"]),
    ] {
        let request = request();
        let asked = client.chat_with(&request, takeover, no_cache);
        let serve = async {
            let (mut stream, seen) = accept(&listener).await;
            stream.write_all(STREAM.as_bytes()).await.unwrap();
            stream.write_all(lines(&events()).as_bytes()).await.unwrap();
            seen.head.to_lowercase()
        };
        let (answer, head) = join(asked, serve).await;
        collect(answer.unwrap()).await.unwrap();
        let said: Vec<&str> = head
            .lines()
            .filter(|line| line.starts_with("x-byzerllm") || line.starts_with("cache-control"))
            .collect();
        assert_eq!(said, fields);
    }
}

#[tokio::test]
async fn an_event_is_handed_on_before_the_next_one_is_sent() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    let request = request();
    let (stream, (mut server, _)) = join(
        async {
            let mut stream = client.chat(&request).await.unwrap();
            let first = stream.next().await.unwrap().unwrap();
            (stream, first)
        },
        async {
            let (mut server, seen) = accept(&listener).await;
            server.write_all(STREAM.as_bytes()).await.unwrap();
            server.write_all(lines(&events()[..1]).as_bytes()).await.unwrap();
            (server, seen)
        },
    )
    .await;
    assert_eq!(stream.1, events()[0]);
    server.write_all(lines(&events()[1..]).as_bytes()).await.unwrap();
    assert_eq!(collect(stream.0).await.unwrap().choices[0].text, "你好\n\n!");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    let request = request();
    let serve = async {
        let (mut server, _) = accept(&listener).await;
        server.write_all(STREAM.as_bytes()).await.unwrap();
        server.write_all(lines(&events()[..1]).as_bytes()).await.unwrap();
        server
    };
    let (stream, mut server) = join(client.chat(&request), serve).await;
    let mut stream = stream.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    // Ends with end-of-file or a reset; a connection that stayed open would hang here.
    let mut rest = Vec::new();
    let _ = server.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

async fn read(body: &str) -> Vec<byzerllm_core::Result<Event>> {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    let request = request();
    let serve = answer(&listener, "200 OK", "text/event-stream; charset=utf-8", body);
    let (stream, _) = join(client.chat(&request), serve).await;
    stream.unwrap().collect().await
}

#[tokio::test]
async fn an_error_in_the_stream_ends_it_and_keeps_the_usage() {
    let usage = Usage { prompt_tokens: 3, ..Usage::default() };
    let original = Error::new(ErrorKind::Unavailable, "drained").with_usage(usage.clone());
    let error = serde_json::to_string(&original).unwrap();
    let body = format!("{}event: error\ndata: {error}\n\n{}", lines(&events()[..2]), lines(&events()[2..]));
    let got = read(&body).await;
    assert_eq!(got.len(), 3);
    let error = got[2].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.message(), error.usage()),
        (ErrorKind::Unavailable, "drained", Some(&usage))
    );
}

#[tokio::test]
async fn a_cut_or_garbled_stream_is_an_error() {
    let got = read(&lines(&events()[..3])).await;
    assert_eq!(got.len(), 4);
    assert_eq!(got[3].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    let got = read("data: {\"event\": \"magic\"}\n\n").await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].as_ref().unwrap_err().kind(), ErrorKind::Upstream);
    let got = read("data: \u{0}\n\n").await;
    assert_eq!(got[0].as_ref().unwrap_err().kind(), ErrorKind::Upstream);
}

#[tokio::test]
async fn an_error_before_the_first_event_is_the_calls_own() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, None).unwrap();
    let request = request();
    let original = Error::new(ErrorKind::Overloaded, "full");
    let body = serde_json::json!({"error": {}, "detail": original});
    let (got, _) = join(client.chat(&request), answer_json(&listener, "429 Too Many Requests", &body)).await;
    assert_eq!(got.err().unwrap().kind(), ErrorKind::Overloaded);
    let (got, _) = join(client.chat(&request), answer(&listener, "200 OK", "text/html", "<html>")).await;
    assert!(got.err().unwrap().message().contains("not an event stream"));
}
