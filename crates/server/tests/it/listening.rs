//! A server on a real socket, and what its clients do. How long a test waits is the test's own.

use std::net::SocketAddr;
use std::time::Duration;

use byzerllm_core::Result;
use byzerllm_runtime::Runtime;
use byzerllm_server::{ServerOptions, Timeouts, bind};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::options;

/// A server that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<Result<()>>,
    /// For its end.
    pub(crate) patience: Duration,
}

/// Serves on a free port of loopback; `patience` is for the end.
pub(crate) async fn start(
    runtime: &Runtime,
    timeouts: Timeouts,
    connections: Option<usize>,
    patience: Duration,
) -> Running {
    let server = bind(ServerOptions { address: ([127, 0, 0, 1], 0).into(), ..options() }).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel();
    let server = server.with_timeouts(timeouts);
    let server = match connections {
        Some(connections) => server.with_connections(connections),
        None => server,
    };
    Running { address, stop, task: tokio::spawn(server.run(runtime.clone(), stopped)), patience }
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        post(self.address, path, body)
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(self.patience, self.task).await.expect("the server stops").unwrap().unwrap();
    }
}

/// The bytes of a request.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Reads until the text holds `until`, or the end.
pub(crate) async fn read(stream: &mut TcpStream, until: &str, patience: Duration) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(until) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    };
    timeout(patience, reading)
        .await
        .unwrap_or_else(|_| panic!("no {until:?} in {:?}", String::from_utf8_lossy(&bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(patience, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}
