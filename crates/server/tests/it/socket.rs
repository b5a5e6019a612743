//! Over real sockets: clients that leave, dawdle or stay, and the server's own end.

use std::net::SocketAddr;
use std::time::Duration;

use byzerllm_core::ErrorKind;
use byzerllm_core::testing::{Gate, ScriptedModel};
use byzerllm_runtime::Scopes;
use byzerllm_server::{ServerOptions, Timeouts, bind};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::listening::{self, Running};
use crate::support::{App, options};

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(app: &App, timeouts: Timeouts) -> Running {
    listening::start(&app.runtime, timeouts, None, PATIENCE).await
}

fn hello(stream: bool) -> String {
    json!({"model": "chat", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).to_string()
}

async fn read(stream: &mut TcpStream, until: &str) -> String {
    listening::read(stream, until, PATIENCE).await
}

async fn until(what: &str, condition: impl FnMut() -> bool) {
    listening::until(what, PATIENCE, condition).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_work() {
    let gate = Gate::closed();
    let app = App::with(ScriptedModel::new("one two three").with_gate(&gate)).await;
    let server = start(&app, Timeouts::default()).await;
    let completion = json!({"model": "chat", "prompt": ["a", "b"], "stream": true}).to_string();
    let native = json!({"model": "chat", "input": {"kind": "text", "value": "x"}}).to_string();
    for (path, body, active) in [
        ("/v1/chat/completions", hello(true), 1),
        ("/v1/chat/completions", hello(false), 1),
        ("/v1/completions", completion.replace("true", "false"), 2),
        ("/v1/completions", completion, 2),
        ("/byzerllm/v1/chat", native, 1),
    ] {
        let mut client = server.connect().await;
        client.write_all(server.post(path, &body).as_bytes()).await.unwrap();
        until("the work begins", || app.model.active() == active).await;
        drop(client);
        until("the work is dropped", || app.model.active() == 0).await;
    }
    // In the middle of a stream, too.
    let mut client = server.connect().await;
    client.write_all(server.post("/v1/chat/completions", &hello(true)).as_bytes()).await.unwrap();
    gate.allow(1);
    read(&mut client, "one").await;
    assert_eq!(app.model.active(), 1);
    drop(client);
    until("the work is dropped", || app.model.active() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn chunks_arrive_one_by_one_on_a_connection_that_stays() {
    let gate = Gate::closed();
    let app = App::with(ScriptedModel::new("one 二 three").with_gate(&gate)).await;
    let server = start(&app, Timeouts::default()).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.write_all(server.post("/v1/chat/completions", &hello(true)).as_bytes()).await.unwrap();
        let head = read(&mut client, "\"role\":\"assistant\"").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        // The end of the body follows the last word by itself.
        let end = "data: [DONE]\n\n\r\n0\r\n\r\n";
        for (word, last) in [("one", "one"), (" 二", " 二"), (" three", end)] {
            gate.allow(1);
            let chunk = read(&mut client, last).await;
            assert!(chunk.contains(&format!("\"content\":\"{word}\"")), "{chunk}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slow_client_is_cut() {
    let app = App::answering("x").await;
    let short = Duration::from_millis(200);
    let server = start(&app, Timeouts { head: short, body: short, ..Timeouts::default() }).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
    assert!(!read(&mut client, "never").await.contains("200 OK"));
    let mut client = server.connect().await;
    let whole = server.post("/v1/chat/completions", &hello(false));
    client.write_all(&whole.as_bytes()[..whole.len() - 5]).await.unwrap();
    assert!(read(&mut client, "request_timeout").await.starts_with("HTTP/1.1 408"));
    // Others are served meanwhile and after.
    let mut client = server.connect().await;
    client.write_all(whole.as_bytes()).await.unwrap();
    assert!(read(&mut client, "usage").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn oversized_heads_and_bodies_are_refused() {
    let app = App::answering("x").await;
    let server = start(&app, Timeouts::default()).await;
    let address = server.address;
    for extra in [format!("x: {}\r\n", "y".repeat(200 << 10)), "x: y\r\n".repeat(200)] {
        let mut client = server.connect().await;
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n{extra}\r\n");
        // The server may answer and close before it has read everything.
        let _cut = client.write_all(head.as_bytes()).await;
        let answer = read(&mut client, "\r\n\r\n").await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    // A client that writes everything before it reads still sees the refusal.
    let mut client = server.connect().await;
    let body = " ".repeat(50 << 20);
    client.write_all(server.post("/v1/completions", &body).as_bytes()).await.unwrap();
    assert!(read(&mut client, "request_too_large").await.starts_with("HTTP/1.1 413"));
    // One that asks first is told at once.
    let mut client = server.connect().await;
    let head =
        server.post("/v1/completions", "").replace("length: 0", "length: 52428800\r\nexpect: 100-continue");
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(read(&mut client, "request_too_large").await.starts_with("HTTP/1.1 413"));
    server.stop().await;
}

#[tokio::test]
async fn a_stop_drains_and_then_cuts() {
    let gate = Gate::closed();
    let app = App::with(ScriptedModel::new("one two").with_gate(&gate)).await;
    let server = start(&app, Timeouts::default()).await;
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    busy.write_all(server.post("/v1/chat/completions", &hello(true)).as_bytes()).await.unwrap();
    read(&mut busy, "assistant").await;
    let address = server.address;
    let Running { stop, task, .. } = server;
    stop.send(()).unwrap();
    assert_eq!(read(&mut idle, "never").await, "", "idle connections are closed");
    until("the port is closed", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(!task.is_finished(), "the running request is waited for");
    gate.open();
    assert!(read(&mut busy, "[DONE]").await.contains("[DONE]"));
    timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();

    // A request that does not end is cut when the time is over.
    let gate = Gate::closed();
    let app = App::with(ScriptedModel::new("one two").with_gate(&gate)).await;
    let server = start(&app, Timeouts { drain: Duration::from_millis(100), ..Timeouts::default() }).await;
    let mut stuck = server.connect().await;
    stuck.write_all(server.post("/v1/chat/completions", &hello(true)).as_bytes()).await.unwrap();
    read(&mut stuck, "assistant").await;
    server.stop().await;
    assert_eq!(app.model.active(), 0);
}

#[tokio::test]
async fn away_from_loopback_nobody_is_served_before_there_is_a_key() {
    let app = App::answering("x").await;
    let address = "0.0.0.0:0".parse().unwrap();
    let server = bind(ServerOptions { address, ..options() }).await.unwrap();
    let error = server.run(app.runtime.clone(), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("address")));
    assert!(error.message().contains("byzerllm keys create --name NAME"), "{error}");

    let made = app.runtime.keys().create(&Scopes::all(), "app", &Scopes::inference(), None).unwrap();
    let server = bind(ServerOptions { address, ..options() }).await.unwrap();
    let near = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(app.runtime.clone(), stopped));
    let running = Running { address: near, stop, task, patience: PATIENCE };
    for (host, credential, status) in [
        (near.to_string(), String::new(), "401"),
        (near.to_string(), format!("authorization: Bearer {}\r\n", made.key), "200"),
        ("gateway.example".to_owned(), format!("authorization: Bearer {}\r\n", made.key), "200"),
        ("evil.example".to_owned(), format!("authorization: Bearer {}\r\n", made.key), "403"),
    ] {
        let mut client = running.connect().await;
        let head = format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n{credential}\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = read(&mut client, "}").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_port_is_taken_once_and_with_a_token() {
    let address = ([127, 0, 0, 1], 0).into();
    let error = bind(ServerOptions { address, admin_token: String::new(), ..options() }).await.err().unwrap();
    assert_eq!(error.param(), Some("admin_token"));
    let first = bind(ServerOptions { address, ..options() }).await.unwrap();
    let error = bind(ServerOptions { address: first.address(), ..options() }).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains(&first.address().port().to_string()), "{error}");
}
