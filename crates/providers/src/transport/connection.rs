//! One HTTP/1.1 connection: a message goes out, the head of its answer comes back, then its body.
//!
//! Everything happens in the task that asks: no task stands beside a connection, and one that waits for bytes holds no
//! buffer. What is read goes through a buffer of the thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::{Link, Origin};
use super::http::Head;
use super::wire::{MAX_HEAD, Odd, Rest, beginning};

/// The size of a thread's buffer, and so of the largest piece that is read at once.
const BUFFER: usize = 16 << 10;
/// A body up to this size goes out in one write with its head.
const SMALL: usize = 16 << 10;

/// A message as it goes over the wire.
pub(crate) struct Outgoing {
    first: Vec<u8>,
    /// The body, where it is large.
    then: Bytes,
}

impl Outgoing {
    /// A head, with its empty line, and a body.
    pub(crate) fn new(mut head: Vec<u8>, body: Bytes) -> Self {
        if body.len() <= SMALL {
            head.extend_from_slice(&body);
            return Self { first: head, then: Bytes::new() };
        }
        Self { first: head, then: body }
    }

    fn rest(&self, written: usize) -> &[u8] {
        match self.first.get(written..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => self.then.get(written.saturating_sub(self.first.len())..).unwrap_or_default(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The connection was closed before anything of the message was written.
    Unsent,
    /// It broke.
    Broken,
    /// What came is not HTTP.
    Odd(Odd),
}

impl From<Odd> for Lost {
    fn from(odd: Odd) -> Self {
        Self::Odd(odd)
    }
}

/// A connection. Dropping it closes it, whatever it is doing.
pub(crate) struct Connection {
    link: Link,
    pub(crate) origin: Origin,
    /// What came of a head that is not whole.
    head: Vec<u8>,
    /// How much of it was looked at: bytes that trickle in must not cost their square.
    looked: usize,
    /// What came of the body together with the head.
    ahead: Bytes,
    rest: Rest,
    /// Whether it serves another message after this answer.
    keep: bool,
}

impl Connection {
    pub(crate) fn new(link: Link, origin: Origin) -> Self {
        Self {
            link,
            origin,
            head: Vec::new(),
            looked: 0,
            ahead: Bytes::new(),
            rest: Rest::Nothing,
            keep: true,
        }
    }

    /// Whether nothing has come since the last answer: neither its end nor bytes that nobody asked for.
    pub(crate) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0; 1];
        self.link.poll_read(cx, &mut byte).is_pending()
    }

    /// Whether the answer was read to its end, and another message may follow.
    pub(crate) fn is_free(&self) -> bool {
        self.keep && self.is_over()
    }

    /// Whether the answer was read to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.ahead.is_empty() && self.rest.is_over()
    }

    /// Sends a message and waits for the head of its answer.
    pub(crate) async fn send(&mut self, message: &Outgoing) -> Result<Head, Lost> {
        if !poll_fn(|cx| Poll::Ready(self.is_quiet(cx))).await {
            return Err(Lost::Unsent);
        }
        let total = message.first.len() + message.then.len();
        let (mut written, mut flushed, mut closed) = (0, false, false);
        // A server may answer without having read everything; then the rest is not sent, and the connection closes.
        let head = poll_fn(|cx| {
            while written < total && !closed {
                match self.link.poll_write(cx, message.rest(written)) {
                    Poll::Ready(Ok(more)) if more > 0 => written += more,
                    Poll::Ready(_) if written == 0 => return Poll::Ready(Err(Lost::Unsent)),
                    // It may have said why before it closed.
                    Poll::Ready(_) => closed = true,
                    Poll::Pending => break,
                }
            }
            if written == total && !flushed && !closed {
                match self.link.poll_flush(cx) {
                    Poll::Ready(done) => (flushed, closed) = (true, done.is_err()),
                    Poll::Pending => {}
                }
            }
            self.poll_head(cx)
        });
        let head = head.await?;
        self.keep &= flushed && !closed;
        Ok(head)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Lost>> {
        with_buffer(|buffer| {
            loop {
                let read = match ready!(self.link.poll_read(cx, buffer)) {
                    Ok(read) if read > 0 => read,
                    _ => return Poll::Ready(Err(Lost::Broken)),
                };
                let mut bytes = &buffer[..read];
                let mut kept = std::mem::take(&mut self.head);
                if !kept.is_empty() {
                    kept.extend_from_slice(bytes);
                    let ends = kept.len().saturating_sub(read + 3);
                    let whole = kept[ends..].windows(2).any(|two| two == b"\n\n")
                        || kept[ends..].windows(3).any(|three| three == b"\n\r\n");
                    if !whole && kept.len() < MAX_HEAD && kept.len() < 2 * self.looked {
                        self.head = kept;
                        continue;
                    }
                    bytes = &kept;
                }
                loop {
                    let Some(found) = beginning(bytes)? else {
                        self.looked = bytes.len();
                        self.head = bytes.to_vec();
                        break;
                    };
                    bytes = &bytes[found.length..];
                    if found.status == 101 {
                        return Poll::Ready(Err(Odd("another protocol, unasked".to_owned()).into()));
                    }
                    // What comes before the answer itself says nothing that matters here.
                    if found.status < 200 {
                        if bytes.is_empty() {
                            break;
                        }
                        continue;
                    }
                    (self.rest, self.keep, self.looked) = (found.rest, found.keep, 0);
                    let mut body = Vec::new();
                    self.take(bytes, &mut body)?;
                    self.ahead = body.into();
                    return Poll::Ready(Ok(Head { status: found.status, headers: found.headers }));
                }
            }
        })
    }

    fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<(), Lost> {
        if self.rest.take(bytes, body)? < bytes.len() {
            // More than was announced: whose answer that is nobody knows.
            self.keep = false;
        }
        Ok(())
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
        }
        with_buffer(|buffer| {
            while !self.rest.is_over() {
                let mut body = Vec::new();
                match ready!(self.link.poll_read(cx, buffer)) {
                    Ok(0) | Err(_) if self.rest != Rest::UntilClose => {
                        return Poll::Ready(Some(Err(Lost::Broken)));
                    }
                    Ok(0) => self.rest = Rest::Nothing,
                    Ok(read) => self.take(&buffer[..read], &mut body)?,
                    Err(_) => return Poll::Ready(Some(Err(Lost::Broken))),
                }
                if !body.is_empty() {
                    return Poll::Ready(Some(Ok(body.into())));
                }
            }
            Poll::Ready(None)
        })
    }
}

/// Lends the thread's buffer.
fn with_buffer<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    thread_local! {
        static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut bytes = BYTES.take();
    bytes.resize(BUFFER, 0);
    let result = work(&mut bytes);
    BYTES.set(bytes);
    result
}

impl Link {
    fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        ready!(match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }
}
