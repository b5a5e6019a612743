//! Messages over a WebSocket: the request is the first one, the answer is those that come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use byzerllm_core::{Error, ErrorKind};
use futures::{SinkExt, Stream};
use http::{HeaderMap, HeaderName};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::body::MAX_EVENT;
use super::connect::Io;
use super::failure::Failure;
use super::http::Head;
use crate::dialect::Outbound;

/// The largest error body of a refused handshake that is kept, in bytes.
const MAX_REFUSAL: usize = 64 << 10;

/// An open WebSocket, or the body of a refused one.
pub(crate) struct Socket {
    stream: Option<WebSocketStream<Box<dyn Io>>>,
    refusal: Option<Utf8Bytes>,
    vendor: &'static str,
}

/// Opens a WebSocket over a connection and sends the first message.
pub(crate) async fn open(
    outbound: Outbound,
    io: Box<dyn Io>,
    vendor: &'static str,
) -> Result<(Head, Socket), Failure> {
    let bad = |why: &str| Failure::hopeless(Error::invalid("saas.base_url", format!("saas/{vendor}: {why}")));
    let mut url = outbound.url;
    let scheme = if matches!(url.scheme(), "https" | "wss") { "wss" } else { "ws" };
    if url.scheme() != scheme {
        // From http(s) to the same with another name.
        url.set_scheme(scheme).map_err(|()| bad("the URL of the API is not one for a WebSocket"))?;
    }
    url.set_fragment(None);
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|_| bad("the URL of the API is not one for a WebSocket"))?;
    extend(request.headers_mut(), outbound.headers);
    let text = Utf8Bytes::try_from(outbound.body).map_err(|_| bad("the first message is not text"))?;
    let config = WebSocketConfig::default().max_message_size(Some(MAX_EVENT)).max_frame_size(Some(MAX_EVENT));
    match client_async_with_config(request, io, Some(config)).await {
        Ok((mut stream, response)) => {
            stream.send(Message::Text(text)).await.map_err(|error| broken(&error, vendor))?;
            let head = Head { status: 200, headers: response.into_parts().0.headers };
            Ok((head, Socket { stream: Some(stream), refusal: None, vendor }))
        }
        Err(tungstenite::Error::Http(response)) => {
            let (parts, body) = response.into_parts();
            let mut body = body.unwrap_or_default();
            body.truncate(MAX_REFUSAL);
            let refusal = Utf8Bytes::from(String::from_utf8_lossy(&body).into_owned());
            let head = Head { status: parts.status.as_u16(), headers: parts.headers };
            Ok((head, Socket { stream: None, refusal: Some(refusal), vendor }))
        }
        // The first message was not sent.
        Err(error) => Err(Failure { billed: false, ..broken(&error, vendor) }),
    }
}

fn extend(headers: &mut HeaderMap, further: HeaderMap) {
    let mut last: Option<HeaderName> = None;
    for (name, value) in further {
        // A name is given once for all its values.
        last = name.or(last);
        if let Some(name) = &last {
            headers.append(name, value);
        }
    }
}

impl Socket {
    /// The next message; `None` when the vendor closed in order.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Utf8Bytes, Failure>>> {
        if let Some(refusal) = self.refusal.take() {
            return Poll::Ready(Some(Ok(refusal)));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        loop {
            let message = match ready!(Pin::new(&mut *stream).poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Err(tungstenite::Error::ConnectionClosed)) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(&error, self.vendor)))),
                Some(Ok(message)) => message,
            };
            match message {
                Message::Text(text) => return Poll::Ready(Some(Ok(text))),
                Message::Binary(bytes) => return Poll::Ready(Some(self.text(bytes))),
                Message::Close(_) => return Poll::Ready(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn text(&self, bytes: Bytes) -> Result<Utf8Bytes, Failure> {
        Utf8Bytes::try_from(bytes).map_err(|_| {
            let message = format!("saas/{} sent a message that is not UTF-8", self.vendor);
            Failure::broken(Error::new(ErrorKind::Upstream, message))
        })
    }
}

fn broken(error: &tungstenite::Error, vendor: &str) -> Failure {
    let message = match error {
        tungstenite::Error::Capacity(_) => {
            format!(
                "saas/{vendor} sent a message of more than {MAX_EVENT} bytes, which is no answer of a language model"
            )
        }
        tungstenite::Error::Protocol(_) => {
            format!("saas/{vendor} does not speak the WebSocket protocol; check saas.base_url")
        }
        tungstenite::Error::Utf8(_) => format!("saas/{vendor} sent a message that is not UTF-8"),
        _ => format!("saas/{vendor} broke the WebSocket; try again"),
    };
    Failure::broken(Error::new(ErrorKind::Upstream, message))
}
