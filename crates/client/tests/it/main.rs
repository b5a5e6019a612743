//! The client against a server whose every byte the test decides.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod admin;
mod chat;
mod ledger;
mod openai;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived.
struct Seen {
    head: String,
    body: String,
}

/// Listens on a free port of this machine.
async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Takes one connection and reads one request.
async fn accept(listener: &TcpListener) -> (TcpStream, Seen) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                })
                .unwrap_or(0_usize);
            if body.len() >= length {
                return (stream, Seen { head: head.to_owned(), body: body.to_owned() });
            }
        }
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "the client went away: {text}");
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// Answers one request with a whole body.
async fn answer(listener: &TcpListener, status: &str, kind: &str, body: &str) -> Seen {
    let (mut stream, seen) = accept(listener).await;
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    seen
}

/// Answers with JSON.
async fn answer_json(listener: &TcpListener, status: &str, body: &serde_json::Value) -> Seen {
    answer(listener, status, "application/json", &body.to_string()).await
}

/// The head of an event stream that ends with its connection.
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
