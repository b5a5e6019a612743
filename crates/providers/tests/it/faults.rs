//! What a vendor does wrong, and what the caller then sees: no text lost, errors as errors, no second question after
//! the first piece of an answer.

use std::time::Duration;

use byzerllm_core::{ChatModel, ChatRequest, Ending, ErrorKind, Event, Input, RequestContext};
use byzerllm_providers::BreakerState;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::mini::{DONE, KEY, Ledger, MORE, STOP, TEXT, USAGE, ask, open, refusal, request, text};
use crate::server::{Server, Step, chunk, events, last_chunk, reply, stream, stream_head};

fn then(mut steps: Vec<Step>, last: Step) -> Vec<Step> {
    steps.push(last);
    steps
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_after_its_text() {
    let cases = [
        ("in order", then(events([TEXT, MORE]), last_chunk())),
        ("closed", then(events([TEXT, MORE]), Step::Close)),
        ("reset", then(events([TEXT, MORE, r#"{"usage":[1,1]}"#]), Step::Reset)),
        (
            "in an event",
            vec![stream_head(), chunk(format!("data: {TEXT}\n\ndata: {MORE}\n\ndata: {{\"te")), last_chunk()],
        ),
        ("marked as whole", stream([TEXT, MORE, DONE])),
    ];
    for (name, reply) in cases {
        let server = Server::start([reply]).await;
        let model = open(&server.url(), &[]);
        let items = ask(&model, request(), RequestContext::local()).await;
        let (all, error) = text(&items);
        let error = error.unwrap();
        // A reset may overtake what was sent before it.
        assert!(all == "Héllo" || name == "reset", "{name}: {all}");
        assert_eq!(error.kind(), ErrorKind::Upstream, "{name}");
        assert!(error.usage().is_some(), "{name}");
        assert!(server.seen().len() == 1 || all.is_empty(), "{name}: asked again after text");
        assert!(model.metrics().failures.contains(&(ErrorKind::Upstream, 1)), "{name}");
    }
}

#[tokio::test]
async fn a_complete_answer_stays_complete_when_its_connection_breaks() {
    for last in [Step::Close, Step::Reset] {
        let server = Server::start([then(events([TEXT, STOP, USAGE]), last)]).await;
        let model = open(&server.url(), &[("max_retries", "0")]);
        let mut stream = model.chat(request(), RequestContext::local()).await.unwrap();
        let mut items = Vec::new();
        while let Some(item) = stream.next().await {
            items.push(item);
        }
        let (_, error) = text(&items);
        assert!(error.is_none() || items.len() < 3, "{items:?}");
    }
}

#[tokio::test]
async fn what_comes_before_the_first_piece_is_tried_again() {
    let cases: [(&str, Vec<Step>); 5] = [
        ("closed", vec![Step::Close]),
        ("reset", vec![Step::Reset]),
        ("an ill server", reply(503, &[], "busy")),
        (
            "an error as the first event",
            stream([r#"{"id":"x"}"#, r#"{"error":{"status":500,"message":"oh"}}"#]),
        ),
        ("an empty answer", stream([])),
    ];
    for (name, first) in cases {
        let server = Server::start([first, stream([TEXT, STOP, USAGE])]).await;
        let model = open(&server.url(), &[("max_retries", "1")]);
        let items = ask(&model, request(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{name}: {items:?}");
        let metrics = model.metrics();
        assert_eq!((metrics.requests, metrics.attempts, metrics.retries), (1, 2, 1), "{name}");
    }
}

#[tokio::test]
async fn what_the_vendor_refuses_is_not_tried_again() {
    for (status, kind) in [
        (400, ErrorKind::InvalidRequest),
        (401, ErrorKind::PermissionDenied),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
        (413, ErrorKind::TooLarge),
    ] {
        let server = Server::start([reply(status, &[("x-request-id", "req-9")], "no")]).await;
        let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
        let error = refusal(&items);
        assert_eq!((error.kind(), error.vendor_request_id()), (kind, Some("req-9")), "{status}");
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn attempts_are_counted_and_end() {
    let ill = || reply(500, &[], "oh no");
    let server = Server::start([ill(), ill(), ill(), ill()]).await;
    let items = ask(&open(&server.url(), &[("max_retries", "2")]), request(), RequestContext::local()).await;
    assert_eq!(refusal(&items).message(), "mini says 500: oh no");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_vendor_s_wish_when_to_ask_again_is_kept() {
    let later = reply(429, &[("retry-after", "30")], "slow down");
    let server = Server::start([later, stream([TEXT, STOP, USAGE])]).await;
    let begun = tokio::time::Instant::now();
    let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
    assert!(text(&items).1.is_none(), "{items:?}");
    // Paused time moves only by what is waited for.
    assert!(begun.elapsed() >= Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_wish_that_is_too_long_is_told_to_the_caller() {
    for (value, limits) in [("61", &[][..]), ("30", &[("timeout", "20")])] {
        let server = Server::start([reply(429, &[("retry-after", value)], "slow down")]).await;
        let items = ask(&open(&server.url(), limits), request(), RequestContext::local()).await;
        let error = refusal(&items);
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert_eq!(error.retry_after(), value.parse().ok().map(Duration::from_secs));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn nobody_listens() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let model = open(&format!("http://{closed}"), &[("max_retries", "1")]);
    let ledger = std::sync::Arc::new(Ledger::default());
    let items = ask(&model, request(), ledger.context()).await;
    let error = refusal(&items);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&closed.to_string()), "{error}");
    let refused = Ending::Refused(ErrorKind::Unavailable);
    assert_eq!(ledger.endings(), [refused.clone(), refused]);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start([]).await;
    let target = format!("{}?key={KEY}", elsewhere.url());
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start([reply(status, &[("location", &target)], "")]).await;
        let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
        let error = refusal(&items);
        let origin = elsewhere.url().replace("/v1", "");
        assert_eq!(error.kind(), ErrorKind::Upstream, "{status}");
        assert!(error.message().contains(&format!("redirects to {origin};")), "{error}");
        assert_eq!(server.seen().len(), 1, "{status}");
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn events_that_are_too_large_are_refused() {
    let piece = "x".repeat(1 << 20);
    let mut steps = then(events([TEXT]), chunk("data: "));
    steps.extend((0..9).map(|_| chunk(&piece)));
    let server = Server::start([steps]).await;
    let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
    let (all, error) = text(&items);
    assert_eq!((all.as_str(), error.unwrap().kind()), ("Hé", ErrorKind::Upstream));
    assert!(error.unwrap().message().contains("8388608 bytes"), "{error:?}");
}

#[tokio::test]
async fn what_is_no_http_and_no_utf8_is_an_error() {
    let cases: [(&str, Vec<Step>); 3] = [
        ("not HTTP", vec![Step::Send(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())]),
        ("not UTF-8", vec![stream_head(), chunk(b"data: \xff\n\n"), last_chunk()]),
        ("compressed", reply(200, &[("content-encoding", "gzip")], "x")),
    ];
    for (name, first) in cases {
        let server = Server::start([first]).await;
        let items =
            ask(&open(&server.url(), &[("max_retries", "0")]), request(), RequestContext::local()).await;
        assert_eq!(refusal(&items).kind(), ErrorKind::Upstream, "{name}");
    }
}

#[tokio::test]
async fn text_after_the_end_of_a_choice_is_an_error() {
    let server = Server::start([stream([TEXT, STOP, MORE])]).await;
    let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
    let (all, error) = text(&items);
    assert_eq!((all.as_str(), error.unwrap().kind()), ("Hé", ErrorKind::Upstream));
    // A second mark of the end does no harm.
    let server = Server::start([stream([TEXT, STOP, STOP, USAGE, DONE, DONE])]).await;
    let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
    assert!(text(&items).1.is_none(), "{items:?}");
}

#[tokio::test]
async fn an_error_in_the_stream_comes_after_the_text_before_it() {
    let both = format!("[{MORE},{}]", r#"{"error":{"status":429,"message":"enough"}}"#);
    let server = Server::start([stream([TEXT, &both])]).await;
    let items = ask(&open(&server.url(), &[]), request(), RequestContext::local()).await;
    let (all, error) = text(&items);
    assert_eq!((all.as_str(), error.unwrap().kind()), ("Héllo", ErrorKind::RateLimited));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_keeps_failing_is_left_alone() {
    let mut answers = vec![reply(500, &[], "oh no"); 5];
    answers.push(stream([TEXT, STOP, USAGE]));
    let server = Server::start(answers).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    for _ in 0..5 {
        assert_eq!(model.metrics().breaker, BreakerState::Closed);
        let items = ask(&model, request(), RequestContext::local()).await;
        assert_eq!(refusal(&items).kind(), ErrorKind::Upstream);
    }
    assert_eq!(model.metrics().breaker, BreakerState::Open);
    let items = ask(&model, request(), RequestContext::local()).await;
    let error = refusal(&items);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(10)), "{error:?}");
    assert_eq!((server.seen().len(), model.metrics().shed), (5, 1));

    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(model.metrics().breaker, BreakerState::HalfOpen);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert!(matches!(items.last(), Some(Ok(Event::Usage { .. }))), "{items:?}");
    assert_eq!(model.metrics().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn refusals_leave_the_breaker_closed() {
    let server = Server::start(vec![reply(400, &[], "no"); 7]).await;
    let model = open(&server.url(), &[]);
    for _ in 0..7 {
        ask(&model, request(), RequestContext::local()).await;
    }
    assert_eq!((server.seen().len(), model.metrics().breaker), (7, BreakerState::Closed));
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_it_is_wrong() {
    let token = |name: &str| reply(200, &[], &format!(r#"{{"token":"{name}"}}"#));
    let answer = || stream([TEXT, STOP, USAGE]);
    let wrong = reply(401, &[], "the token first-token is wrong");
    let server =
        Server::start([token("first-token"), answer(), answer(), wrong, token("second-token"), answer()])
            .await;
    let model = open(&server.url(), &[("token", "true"), ("max_retries", "1")]);
    for _ in 0..3 {
        let items = ask(&model, request(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{items:?}");
    }
    let shown: Vec<_> =
        server.seen().iter().map(|seen| seen.field("authorization").unwrap_or_default().to_owned()).collect();
    let key = format!("Bearer {KEY}");
    let (first, second) = ("Bearer first-token", "Bearer second-token");
    assert_eq!(shown, [&key, first, first, first, &key, second]);
}

#[tokio::test]
async fn a_vendor_that_calls_a_new_token_wrong_means_it() {
    let server = Server::answering(|body| match body {
        "{}" => reply(200, &[], r#"{"token":"some-token"}"#),
        _ => reply(401, &[], "the token some-token is wrong"),
    })
    .await;
    let model = open(&server.url(), &[("token", "true"), ("max_retries", "9")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert_eq!(refusal(&items).kind(), ErrorKind::PermissionDenied);
    assert!(!refusal(&items).message().contains("some-token"), "{}", refusal(&items));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_question_that_was_not_read_to_its_end_does_not_hold_up_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            open.push(tcp);
            if open.len() == 2 {
                return;
            }
        }
    });
    let model = open(&url, &[("max_retries", "0")]);
    for _ in 0..2 {
        let long = ChatRequest::new("m", Input::Text("long ".repeat(4 << 20)));
        let items = ask(&model, long, RequestContext::local()).await;
        assert_eq!(refusal(&items).kind(), ErrorKind::TooLarge);
    }
    served.await.unwrap();
}
