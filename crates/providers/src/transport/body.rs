//! The answer to a message, piece by piece.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use byzerllm_core::{Error, ErrorKind};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::connection::Connection;
use super::failure::Failure;
use super::pool::Pool;
use super::websocket::Socket;
use super::{Clock, http};

/// The largest answer in one piece, in bytes.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// The largest server-sent event or WebSocket message, in bytes.
pub(crate) const MAX_EVENT: usize = 8 << 20;
/// The end of a body comes so soon after the end of the answer, or is not waited for.
const REST: Duration = Duration::from_secs(5);

/// What comes back.
pub(crate) enum Body {
    Http(HttpBody),
    Socket(Box<Socket>),
}

/// A piece of it.
pub(crate) enum Piece {
    /// Bytes, cut anywhere.
    Bytes(Bytes),
    /// A whole message.
    Message(Utf8Bytes),
}

impl Body {
    /// The next piece; `None` at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Failure>>> {
        match self {
            Self::Http(body) => body.poll_bytes(cx).map(|next| next.map(|bytes| bytes.map(Piece::Bytes))),
            Self::Socket(socket) => {
                socket.poll_message(cx).map(|next| next.map(|text| text.map(Piece::Message)))
            }
        }
    }

    /// Lets go of an answer that is complete. An HTTP connection serves the next request once the end of the body is
    /// read, for which nobody waits.
    pub(crate) fn finish(mut self, cx: &mut Context<'_>) {
        loop {
            match self.poll_piece(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return,
                Poll::Pending => break,
            }
        }
        if matches!(self, Self::Http(_)) {
            tokio::spawn(async move {
                let rest =
                    async { while let Some(Ok(_)) = std::future::poll_fn(|cx| self.poll_piece(cx)).await {} };
                // One that does not end is closed.
                let _ = tokio::time::timeout(REST, rest).await;
            });
        }
    }

    /// All of it, at most `limit` bytes, within the clock's limits.
    pub(crate) async fn whole(mut self, limit: usize, clock: &Clock, vendor: &str) -> Result<Bytes, Failure> {
        let mut first: Option<Bytes> = None;
        let mut more = BytesMut::new();
        loop {
            let (until, phase) = clock.first_byte();
            let (until, phase) =
                if first.is_none() { (until, phase) } else { clock.idle(tokio::time::Instant::now()) };
            let next = tokio::time::timeout_at(until, std::future::poll_fn(|cx| self.poll_piece(cx))).await;
            let piece = match next {
                Err(_) => return Err(http::passed(clock, phase, vendor)),
                Ok(None) if more.is_empty() => return Ok(first.unwrap_or_default()),
                Ok(None) => return Ok(more.freeze()),
                Ok(Some(piece)) => piece?,
            };
            let bytes = match piece {
                Piece::Bytes(bytes) => bytes,
                Piece::Message(text) => Bytes::from(text),
            };
            let length = if more.is_empty() { first.as_ref().map_or(0, Bytes::len) } else { more.len() };
            if length + bytes.len() > limit {
                return Err(too_large(limit, vendor));
            }
            match &first {
                // Most answers come in one piece.
                None => first = Some(bytes),
                Some(start) => {
                    if more.is_empty() {
                        more.extend_from_slice(start);
                    }
                    more.extend_from_slice(&bytes);
                }
            }
        }
    }
}

/// The refusal of an answer that is too large.
pub(crate) fn too_large(limit: usize, vendor: &str) -> Failure {
    let message =
        format!("saas/{vendor} sent more than {limit} bytes, which is no answer of a language model");
    Failure { retry: false, ..Failure::broken(Error::new(ErrorKind::Upstream, message)) }
}

/// The body of an HTTP answer. Read to its end, its connection waits for the next message; dropped before, it closes.
pub(crate) struct HttpBody {
    connection: Option<Connection>,
    pool: Pool,
    vendor: &'static str,
}

impl HttpBody {
    pub(crate) fn new(connection: Connection, pool: Pool, vendor: &'static str) -> Self {
        let mut body = Self { connection: Some(connection), pool, vendor };
        body.release();
        body
    }

    /// Lets go of the connection once nothing more is to be read from it.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take_if(|connection| connection.is_over())
            && connection.is_free()
        {
            self.pool.put(connection);
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        let next = match ready!(connection.poll_body(cx)) {
            Some(Ok(bytes)) => Some(Ok(bytes)),
            Some(Err(lost)) => {
                self.connection = None;
                Some(Err(http::broken(&lost, self.vendor, "while the answer came")))
            }
            None => None,
        };
        self.release();
        Poll::Ready(next)
    }
}
