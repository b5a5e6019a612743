//! Just as much HTTP/1.1 as a vendor's front door needs. It is written on the bare socket, as faults need every byte of it:
//! a chunk that ends too early, a reset before the head.

use std::io;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest head and the longest body that are read.
const HEAD: usize = 64 << 10;
const BODY: usize = 64 << 20;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request {
    /// `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// As text; bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Request {
    /// A header field's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter's value.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The credential of `Authorization: Bearer …`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, rest) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    }

    /// Whether it asks for a WebSocket.
    pub(crate) fn upgrades(&self) -> bool {
        self.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    }

    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Whole {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let kind = ("content-type".to_owned(), "application/json; charset=utf-8".to_owned());
        Self { status, headers: vec![kind], body: body.to_string().into_bytes() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A connection from a client.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) pending: Vec<u8>,
}

impl Connection {
    /// The next request; `None` when the client is done.
    pub(crate) async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((mut request, used, length)) = head(&self.pending)? {
                self.pending.drain(..used);
                if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
                    self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                }
                let body = match length {
                    Length::Bytes(length) => self.bytes(length).await?,
                    Length::Chunked => self.chunks().await?,
                };
                request.body = String::from_utf8_lossy(&body).into_owned();
                return Ok(Some(request));
            }
            if self.pending.len() > HEAD {
                return Err(io::Error::other("the head of the request is too long"));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads what there is; `false` at the end.
    pub(crate) async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.pending).await? > 0)
    }

    /// Takes so many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if count > BODY {
            return Err(io::Error::other("the body of the request is too long"));
        }
        while self.pending.len() < count {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.pending.drain(..count).collect())
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| io::Error::other("a chunk without a size"))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.bytes(size).await?);
            self.bytes(2).await?;
            if body.len() > BODY {
                return Err(io::Error::other("the body of the request is too long"));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.bytes(end + 2).await?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

enum Length {
    Bytes(usize),
    Chunked,
}

fn head(bytes: &[u8]) -> io::Result<Option<(Request, usize, Length)>> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    let used = match parsed.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(used) => used,
        httparse::Status::Partial => return Ok(None),
    };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|field| {
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).trim().to_owned())
        })
        .collect();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: decoded(path, false),
        query: pairs(query),
        headers,
        body: String::new(),
    };
    let chunked =
        request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = match request.header("content-length") {
        _ if chunked => Length::Chunked,
        Some(length) => Length::Bytes(length.parse().map_err(io::Error::other)?),
        None => Length::Bytes(0),
    };
    Ok(Some((request, used, length)))
}

/// The pairs of a query or a form.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name, true), decoded(value, true))
        })
        .collect()
}

fn decoded(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        let hex = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                left = &rest[2..];
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The status line and the fields of an answer.
pub(crate) fn answer_head(status: u16, headers: &[(String, String)]) -> Vec<u8> {
    let reason = match status {
        101 => "Switching Protocols",
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    };
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let expected = [("a".to_owned(), "b c/d".to_owned()), ("e".to_owned(), String::new())];
        assert_eq!(pairs("a=b+c%2Fd&e"), expected);
    }
}
