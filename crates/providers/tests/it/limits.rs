//! Time limits: each ends what it limits, and says its name.

use std::time::{Duration, Instant};

use byzerllm_core::{ChatModel, Error, ErrorKind, RequestContext};
use futures::StreamExt;

use crate::mini::{STOP, TEXT, USAGE, ask, open, refusal, request, text};
use crate::server::{Server, Step, events, stream};

fn names(error: &Error, parameter: &str) {
    assert_eq!((error.kind(), error.param()), (ErrorKind::DeadlineExceeded, Some(parameter)), "{error}");
    assert!(error.message().contains(parameter), "{error}");
}

#[tokio::test]
async fn a_vendor_that_does_not_begin() {
    for stalled in [vec![Step::Stall], events([])] {
        let stalled = stalled.into_iter().chain([Step::Stall]).collect();
        let server = Server::start([stalled, stream([TEXT, STOP, USAGE])]).await;
        let model = open(&server.url(), &[("first_byte_timeout", "0.05"), ("max_retries", "0")]);
        names(refusal(&ask(&model, request(), RequestContext::local()).await), "saas.first_byte_timeout");
        server.client_gone().await;
    }
}

#[tokio::test]
async fn a_slow_beginning_is_tried_again() {
    let server = Server::start([vec![Step::Stall], stream([TEXT, STOP, USAGE])]).await;
    let model = open(&server.url(), &[("first_byte_timeout", "0.2"), ("max_retries", "1")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert!(text(&items).1.is_none() || server.seen().len() == 2, "{items:?}");
    assert_eq!(model.metrics().attempts, 2);
}

#[tokio::test]
async fn an_answer_that_stands_still() {
    let stalled = events([TEXT]).into_iter().chain([Step::Stall]).collect();
    let server = Server::start([stalled]).await;
    let model = open(&server.url(), &[("idle_timeout", "0.05")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    let (all, error) = text(&items);
    assert_eq!(all, "Hé");
    names(error.unwrap(), "saas.idle_timeout");
    assert!(error.unwrap().usage().is_some());
    server.client_gone().await;
}

#[tokio::test]
async fn an_answer_that_does_not_end() {
    let server = Server::start([events([TEXT]).into_iter().chain([Step::Stall]).collect()]).await;
    let model = open(&server.url(), &[("timeout", "0.05")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    names(text(&items).1.unwrap(), "saas.timeout");
}

#[tokio::test]
async fn the_caller_s_deadline() {
    let server = Server::start([events([TEXT]).into_iter().chain([Step::Stall]).collect()]).await;
    let model = open(&server.url(), &[]);
    let deadline = Some(Instant::now() + Duration::from_millis(50));
    let items = ask(&model, request(), RequestContext { deadline, ..RequestContext::local() }).await;
    let error = text(&items).1.unwrap();
    assert_eq!((error.kind(), error.param()), (ErrorKind::DeadlineExceeded, None));
    assert!(error.message().contains("deadline of the request"), "{error}");
}

#[tokio::test]
async fn a_connection_that_does_not_stand() {
    // A listener whose queue is full answers no more connections: the second or third one waits.
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = listener.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(tokio::spawn(tokio::net::TcpStream::connect(address)));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let model = open(&format!("http://{address}"), &[("connect_timeout", "0.05"), ("max_retries", "0")]);
    names(refusal(&ask(&model, request(), RequestContext::local()).await), "saas.connect_timeout");
}

#[tokio::test]
async fn whoever_goes_away_ends_the_work() {
    let server =
        Server::start([events([TEXT]).into_iter().chain([Step::Stall]).collect(), vec![Step::Stall]]).await;
    let model = open(&server.url(), &[]);
    let mut stream = model.chat(request(), RequestContext::local()).await.unwrap();
    assert!(stream.next().await.is_some());
    drop(stream);
    server.client_gone().await;
    assert_eq!(model.metrics().dropped, 1);
    // Before the first piece, too.
    let early =
        tokio::time::timeout(Duration::from_millis(50), model.chat(request(), RequestContext::local())).await;
    assert!(early.is_err());
    server.client_gone().await;
}
