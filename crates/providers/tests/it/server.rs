//! A server of raw bytes: every reply is written as the test says, so that cuts, stalls and resets are exact.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What the server does after it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Writes bytes.
    Send(Vec<u8>),
    /// Waits until the client goes away.
    Stall,
    /// Closes the connection in order.
    Close,
    /// Breaks the connection.
    Reset,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Request line and header fields.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
    /// Which connection, from 0.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

type Answering = Box<dyn FnMut(&str) -> Vec<Step> + Send>;

struct State {
    answer: Mutex<Answering>,
    seen: Mutex<Vec<Seen>>,
}

/// A running server. Each request takes the next reply; without one it stalls.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
    /// A permit for every client that went away while the server stalled.
    gone: Arc<Semaphore>,
}

impl Server {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Vec<Step>>) -> Self {
        let mut replies: VecDeque<_> = replies.into_iter().collect();
        Self::answering(move |_| replies.pop_front().unwrap_or_else(|| vec![Step::Stall])).await
    }

    /// A server whose replies depend on the request's body.
    pub(crate) async fn answering(answer: impl FnMut(&str) -> Vec<Step> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { answer: Mutex::new(Box::new(answer)), seen: Mutex::default() });
        let gone = Arc::new(Semaphore::new(0));
        let (shared, left) = (Arc::clone(&state), Arc::clone(&gone));
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, connection, Arc::clone(&shared), Arc::clone(&left)));
            }
        });
        Self { address, state, gone }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Waits until a client goes away from a reply that stalls.
    pub(crate) async fn client_gone(&self) {
        self.gone.acquire().await.unwrap().forget();
    }
}

async fn serve(mut stream: TcpStream, connection: usize, state: Arc<State>, gone: Arc<Semaphore>) {
    loop {
        let Some((head, body)) = read_request(&mut stream).await else { return };
        let reply = state.answer.lock().unwrap()(&body);
        state.seen.lock().unwrap().push(Seen { head, body, connection });
        for step in reply {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return gone.add_permits(1);
                    }
                }
                Step::Stall => {
                    while stream.read_u8().await.is_ok() {}
                    return gone.add_permits(1);
                }
                Step::Close => return,
                Step::Reset => {
                    #[expect(deprecated, reason = "the way to send a reset")]
                    stream.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                    return;
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// The head of a streamed answer, chunk by chunk.
pub(crate) fn stream_head() -> Step {
    Step::Send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
    )
}

/// A chunk of it.
pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    Step::Send(out)
}

/// Its end.
pub(crate) fn last_chunk() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// An event for each piece of data, in a chunk of its own.
pub(crate) fn events<'a>(data: impl IntoIterator<Item = &'a str>) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(data.into_iter().map(|data| chunk(format!("data: {data}\n\n"))));
    steps
}

/// The same, complete.
pub(crate) fn stream<'a>(data: impl IntoIterator<Item = &'a str>) -> Vec<Step> {
    let mut steps = events(data);
    steps.push(last_chunk());
    steps
}

/// A whole reply.
pub(crate) fn reply(status: u16, fields: &[(&str, &str)], body: &str) -> Vec<Step> {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.push_str(body);
    vec![Step::Send(head.into_bytes())]
}
