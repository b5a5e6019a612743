//! Answers as they should be, in every form and every cut.

use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::{
    ChatModel, ChatRequest, EmbeddingInput, EmbeddingModel, EmbeddingRequest, ErrorKind, Event, FinishReason,
    Input, Message, Part, RequestContext, Role, Tool, Usage, UsageSource,
};
use futures::{SinkExt, StreamExt};
use proptest::prelude::*;
use tokio_tungstenite::tungstenite;

use crate::mini::{DONE, KEY, MORE, STOP, TEXT, USAGE, ask, open, refusal, request, text};
use crate::server::{Server, Step, chunk, last_chunk, reply, stream, stream_head};

#[tokio::test]
async fn an_answer_comes_piece_by_piece_and_its_connection_serves_the_next() {
    let id = r#"{"id":"v-1"}"#;
    let answer = || stream([id, TEXT, MORE, STOP, USAGE, DONE]);
    let server = Server::start([answer(), answer()]).await;
    let model = open(&server.url(), &[]);
    for _ in 0..2 {
        let context = RequestContext::local();
        let request_id = context.id.clone();
        let items: Vec<_> = ask(&model, request(), context).await.into_iter().map(Result::unwrap).collect();
        let piece = |text: &str| Event::Text { choice: 0, text: text.to_owned(), logprobs: None };
        let source = UsageSource::Reported;
        assert_eq!(
            items,
            [
                Event::Started { request_id, vendor_request_id: Some("v-1".to_owned()) },
                piece("Hé"),
                piece("llo"),
                Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None },
                Event::Usage {
                    usage: Usage { prompt_tokens: 3, completion_tokens: 2, source, ..Usage::default() }
                },
            ]
        );
        // The end of the body is read by whoever comes next.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.connection == 0), "one connection");
    let first = &seen[0];
    assert_eq!(first.line(), "POST /v1/chat HTTP/1.1");
    assert_eq!(first.field("host"), server.url().strip_prefix("http://").unwrap().strip_suffix("/v1"));
    assert_eq!(first.field("content-type"), Some("application/json"));
    assert_eq!(first.field("accept"), Some("text/event-stream"));
    assert_eq!(first.field("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert!(first.body.contains("Hello"));
}

#[tokio::test]
async fn a_whole_answer_gives_the_same() {
    let body = format!("[{TEXT},{MORE},{STOP},{USAGE}]");
    let server = Server::start([reply(200, &[], &body), reply(200, &[], &body)]).await;
    let model = open(&server.url(), &[]);
    for _ in 0..2 {
        let whole = ChatRequest { whole: true, ..request() };
        let items = ask(&model, whole, RequestContext::local()).await;
        let (all, error) = text(&items);
        assert!(error.is_none(), "{error:?}");
        assert_eq!((all.as_str(), items.len()), ("Héllo", 5));
    }
    assert!(server.seen().iter().all(|seen| seen.connection == 0));
    assert_eq!(server.seen()[0].field("accept"), Some("application/json"));
}

#[tokio::test]
async fn a_server_that_sends_one_body_for_events_is_understood() {
    let body = format!("[{TEXT},{STOP},{USAGE}]");
    let error = r#"{"error":{"status":401,"message":"no such key"}}"#;
    let odd = r#"{"detail":"nothing here"}"#;
    let json = [("content-type", "application/json")];
    let server =
        Server::start([reply(200, &json, &body), reply(200, &json, error), reply(200, &json, odd)]).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    let (all, error) = text(&items);
    assert!(error.is_none() && all == "Hé", "{items:?}");
    let items = ask(&model, request(), RequestContext::local()).await;
    assert_eq!(refusal(&items).kind(), ErrorKind::PermissionDenied);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert!(refusal(&items).message().contains("nothing here"), "the dialect reads the body");
}

#[tokio::test]
async fn an_end_without_an_empty_line_loses_nothing() {
    let tail = format!("data: {TEXT}\n\ndata: {STOP}");
    let server = Server::start([vec![stream_head(), chunk(tail), last_chunk()]]).await;
    let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
    assert!(text(&items).1.is_none(), "{items:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_no_attempt() {
    let mut first = stream([TEXT, STOP, USAGE]);
    first.push(Step::Close);
    let server = Server::start([first, stream([TEXT, STOP, USAGE])]).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    for _ in 0..2 {
        let items = ask(&model, request(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{items:?}");
        // Lets the end of the first connection be seen.
        tokio::task::yield_now().await;
    }
    assert_eq!(model.metrics().attempts, 2);
    assert_eq!(server.seen()[1].connection, 1);
}

#[tokio::test]
async fn several_choices_finish_each() {
    let data = [
        r#"{"choice":1,"text":"b"}"#,
        r#"{"choice":0,"text":"a"}"#,
        r#"{"choice":0,"finish":"stop"}"#,
        r#"{"choice":1,"text":"c","finish":"length"}"#,
        r#"{"choice":1,"finish":"length"}"#,
        USAGE,
    ];
    let server = Server::start([stream(data)]).await;
    let items =
        ask(&open(&server.url(), &[]), ChatRequest { n: 2, ..request() }, RequestContext::local()).await;
    assert!(text(&items).1.is_none(), "{items:?}");
    let ends = items.iter().filter(|item| matches!(item, Ok(Event::Finished { .. }))).count();
    assert_eq!(ends, 2);
}

#[tokio::test]
async fn what_the_model_cannot_do_is_refused_by_name_and_nothing_is_sent() {
    let server = Server::start([]).await;
    let model = open(&server.url(), &[]);
    let picture = Part::Image { url: "data:image/png;base64,AA==".to_owned(), detail: None };
    let mut misspelt = request();
    misspelt.extra.insert("flavor".to_owned(), "sweet".into());
    let tool = Tool { name: "f".to_owned(), description: None, parameters: None, strict: false };
    let cases = [
        ("flavor", misspelt),
        ("tools", ChatRequest { tools: vec![tool], ..request() }),
        (
            "messages",
            ChatRequest::new("m", Input::Messages(vec![Message::of_parts(Role::User, vec![picture])])),
        ),
        ("prompt_token_ids", ChatRequest::new("m", Input::Tokens(vec![1]))),
    ];
    for (param, request) in cases {
        let items = ask(&model, request, RequestContext::local()).await;
        let error = refusal(&items);
        assert_eq!((error.kind(), error.param()), (ErrorKind::Unsupported, Some(param)), "{error}");
        assert!(param != "flavor" || error.message().contains("'flavour'"), "{error}");
    }
    assert!(server.seen().is_empty());
    assert_eq!(model.tokenize("a").unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(model.apply_template(&[], true).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn the_handle_tells_what_is_known_and_no_secret() {
    let model = open("http://127.0.0.1:9/v1?key=secret", &[("context_length", "4096")]);
    let handle = model.handle();
    assert!(
        handle.chat.is_some_and(|chat| chat.accounts()) && handle.embed.is_some_and(|embed| embed.accounts())
    );
    let shown = serde_json::to_string(&*handle.info).unwrap();
    assert_eq!(handle.info.engine, "saas/mini");
    assert_eq!((handle.info.compute.as_str(), handle.info.context_length), ("remote", Some(4096)));
    assert_eq!(handle.info.details["base_url"], "http://127.0.0.1:9/v1");
    assert!(!shown.contains("secret") && !shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn vectors_come_in_batches_and_in_order() {
    let two = r#"{"vectors":[[1.0,2.0],[3.0,4.0]],"tokens":5}"#;
    let one = r#"{"vectors":[[5.0,6.0]],"tokens":2}"#;
    let server = Server::start([reply(200, &[], two), reply(200, &[], one), reply(200, &[], one)]).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    let inputs = |number: usize| EmbeddingRequest {
        model: "m".to_owned(),
        inputs: (0..number).map(|index| EmbeddingInput::Text(format!("text {index}"))).collect(),
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: serde_json::Map::new(),
    };
    let embeddings = model.embed(inputs(3), RequestContext::local()).await.unwrap();
    assert_eq!(embeddings.vectors, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    assert_eq!(embeddings.usage.prompt_tokens, 7);
    assert_eq!(server.seen()[1].body, r#"["text 2"]"#);
    // One vector for two texts is no answer.
    let error = model.embed(inputs(2), RequestContext::local()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upstream);
}

/// A WebSocket server that sends these messages and then closes.
async fn socket_server(messages: Vec<&'static str>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1", listener.local_addr().unwrap());
    let first = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        let first = socket.next().await.unwrap().unwrap();
        for message in messages {
            socket.send(tungstenite::Message::text(message)).await.unwrap();
        }
        let _ = socket.close(None).await;
        first.into_text().unwrap().to_string()
    });
    (url, first)
}

#[tokio::test]
async fn a_web_socket_gives_the_same() {
    let (url, first) = socket_server(vec![TEXT, MORE, STOP, USAGE]).await;
    let items = ask(&open(&url, &[("form", "socket")]), request(), RequestContext::local()).await;
    assert_eq!(text(&items).0, "Héllo");
    assert!(text(&items).1.is_none(), "{items:?}");
    assert!(first.await.unwrap().contains("Hello"));

    let (url, _first) = socket_server(vec![TEXT]).await;
    let items = ask(&open(&url, &[("form", "socket")]), request(), RequestContext::local()).await;
    let (all, error) = text(&items);
    assert_eq!((all.as_str(), error.unwrap().kind()), ("Hé", ErrorKind::Upstream));
}

#[tokio::test]
async fn a_web_socket_that_is_refused_tells_why() {
    let server = Server::start([reply(403, &[], "no such app")]).await;
    let url = server.url().replace("http:", "ws:");
    let items = ask(&open(&url, &[("form", "socket")]), request(), RequestContext::local()).await;
    assert_eq!(refusal(&items).kind(), ErrorKind::PermissionDenied);
    assert!(refusal(&items).message().contains("no such app"), "{}", refusal(&items));
}

#[tokio::test]
async fn a_proxy_is_used_where_one_is_named() {
    let proxy = Server::start([stream([TEXT, STOP, USAGE])]).await;
    let through = proxy.url().replace("http://", "http://user:pass%20word@");
    let model = open("http://vendor.test/v1", &[("proxies", &through)]);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert!(text(&items).1.is_none(), "{items:?}");
    let seen = &proxy.seen()[0];
    assert_eq!(seen.line(), "POST http://vendor.test/v1/chat HTTP/1.1");
    assert_eq!(seen.field("proxy-authorization"), Some("Basic dXNlcjpwYXNzIHdvcmQ="));
    assert_eq!(seen.field("host"), Some("vendor.test"));
}

/// Requests of the conformance kit have this many choices and tokens; the answer fits them.
fn fitting(body: &str) -> Vec<Step> {
    let asked: serde_json::Value = serde_json::from_str(body).unwrap();
    let choices = asked["n"].as_u64().unwrap();
    let mut data: Vec<String> = Vec::new();
    for choice in 0..choices {
        data.push(format!(r#"{{"choice":{choice},"text":"word"}}"#));
        data.push(format!(r#"{{"choice":{choice},"finish":"stop"}}"#));
    }
    data.push(format!(r#"{{"usage":[4,{choices}]}}"#));
    stream(data.iter().map(String::as_str))
}

#[tokio::test]
async fn the_model_conforms() {
    let server = Server::answering(fitting).await;
    let model = open(&server.url(), &[]);
    byzerllm_core::testing::conformance(Arc::clone(&model) as Arc<dyn ChatModel>, "mini").await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn how_the_bytes_are_cut_changes_nothing(
        pieces in prop::collection::vec("[a-zé漢😀\\\\\" ]{1,6}", 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let mut body = String::from(": begin\n\n");
        for piece in &pieces {
            body.push_str(&format!("data: {}\r\n\r\n", serde_json::json!({ "text": piece })));
        }
        body.push_str(&format!("event: end\ndata: {STOP}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n"));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let chunks = cuts.windows(2).map(|pair| chunk(&body.as_bytes()[pair[0]..pair[1]]));
        let answer = std::iter::once(stream_head()).chain(chunks).chain([last_chunk()]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let items = runtime.block_on(async {
            let server = Server::start([answer]).await;
            ask(&open(&server.url(), &[]), request(), RequestContext::local()).await
        });
        let texts: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Ok(Event::Text { text, .. }) => Some(text.clone()),
                _ => None,
            })
            .collect();
        prop_assert_eq!(texts, pieces);
        prop_assert!(matches!(items.last(), Some(Ok(Event::Usage { .. }))), "{:?}", items);
    }
}
