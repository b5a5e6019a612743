//! One HTTP connection pool per client: no redirects, no proxy between a program and its own machine.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use byzerllm_core::{Error, ErrorKind, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::{Method, Response, Url};
use serde_json::Value;

use crate::sse::Parser;
use crate::tls::Trust;

/// The largest answer that is not a stream; an inspection lists every tensor.
const MAX_BODY: usize = 64 << 20;
/// The largest event of a stream, in bytes. A prompt's log probabilities are the largest thing that is sent.
const MAX_EVENT: usize = 64 << 20;
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A server-sent event.
pub(crate) struct Frame {
    /// The `event` field; empty when there was none.
    pub(crate) event: String,
    /// The data.
    pub(crate) data: String,
}

/// Where requests go and what they carry.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// Reads a URL of the form `http://host:port` or `https://host:port`, without query, fragment or credentials.
pub(crate) fn parse_url(text: &str) -> Result<Url> {
    let bad = |why: &str| {
        let shown: String = text.chars().take(200).collect();
        Error::invalid("url", format!("'{}' {why}; use the form http://127.0.0.1:8000", shown.escape_debug()))
    };
    let mut url = Url::parse(text.trim()).map_err(|_| bad("is not a URL"))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(bad("is not an http URL")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid(
            "url",
            "a server's URL must not hold credentials; give the token by itself",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("holds a query or a fragment"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Whether the URL means this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Http {
    /// A pool for a server of someone else.
    pub(crate) fn new(base: Url, token: Option<String>) -> Result<Self> {
        let trust = if base.scheme() == "https" { Trust::System } else { Trust::Nobody };
        Self::with_trust(base, token, trust, false)
    }

    /// A pool for a server; one of this user is on this machine, wherever its address points.
    pub(crate) fn with_trust(base: Url, token: Option<String>, trust: Trust, own: bool) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .tls_backend_preconfigured(trust.config()?)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("byzerllm/", env!("CARGO_PKG_VERSION")));
        if own || is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| Error::internal("cannot make an HTTP client").with_source(error))?;
        Ok(Self { client, base, token })
    }

    /// The URL without a slash at the end.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Takes a token when there is none.
    pub(crate) fn or_token(&mut self, token: Option<String>) {
        self.token = self.token.take().or(token);
    }

    /// Sends a request; an answer outside 2xx is an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Response> {
        self.send_with(method, path, query, &[], body).await
    }

    /// [`Self::send`] with further header fields.
    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        fields: &[(&'static str, &'static str)],
        body: Option<&Value>,
    ) -> Result<Response> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(path);
            }
            Err(()) => return Err(Error::invalid("url", "the server's URL cannot be extended")),
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.transport(error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// Sends a request and reads the JSON answer.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value> {
        let response = self.send(method, path, query, body).await?;
        let bytes = self.body(response, MAX_BODY).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.odd("its answer is not JSON").with_source(error))
    }

    /// The events of a streamed answer. Dropping the stream closes the connection.
    pub(crate) fn frames(&self, response: Response) -> Result<BoxStream<'static, Result<Frame>>> {
        let kind = response.headers().get(reqwest::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(self.odd("its answer is not an event stream"));
        }
        struct Reading {
            http: Http,
            bytes: BoxStream<'static, reqwest::Result<Bytes>>,
            parser: Parser,
            ready: std::vec::IntoIter<Frame>,
            over: bool,
        }
        let reading = Reading {
            http: self.clone(),
            bytes: response.bytes_stream().boxed(),
            parser: Parser::new(MAX_EVENT),
            ready: Vec::new().into_iter(),
            over: false,
        };
        let frames = futures::stream::unfold(reading, |mut reading| async move {
            loop {
                if let Some(frame) = reading.ready.next() {
                    return Some((Ok(frame), reading));
                }
                if reading.over {
                    return None;
                }
                let error = match reading.bytes.next().await {
                    None => return None,
                    Some(Ok(bytes)) => {
                        let mut frames = Vec::new();
                        let result = reading.parser.push(&bytes, &mut |frame| {
                            frames.push(Frame { event: frame.event.to_owned(), data: frame.data.to_owned() });
                            Ok(())
                        });
                        reading.ready = frames.into_iter();
                        match result {
                            Ok(()) => continue,
                            Err(error) => error,
                        }
                    }
                    Some(Err(error)) => reading.http.transport(error),
                };
                reading.over = true;
                return Some((Err(error), reading));
            }
        });
        Ok(frames.boxed())
    }

    async fn body(&self, response: Response, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.transport(error))?;
            if bytes.len() + piece.len() > limit {
                return Err(self.odd(&format!("its answer has more than {limit} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// The error of a connection that failed. The cause names no secret: tokens travel in a header.
    fn transport(&self, error: reqwest::Error) -> Error {
        let url = self.base();
        if error.is_connect() {
            if is_certificate(&error) {
                let message = format!(
                    "the certificate of the server at {url} is not trusted; name its issuer in SSL_CERT_FILE, or \
                     use the name that the certificate is for"
                );
                return Error::new(ErrorKind::Unavailable, message).with_source(error);
            }
            let message = if is_loopback(&self.base) {
                format!("no server at {url}; start one with `byzerllm serve`")
            } else {
                format!("no server at {url}; check the URL, or start one there with `byzerllm serve`")
            };
            return Error::new(ErrorKind::Unavailable, message).with_source(error);
        }
        if error.is_timeout() {
            return Error::new(
                ErrorKind::DeadlineExceeded,
                format!("the server at {url} did not answer in time"),
            )
            .with_source(error);
        }
        Error::new(ErrorKind::Unavailable, format!("the connection to the server at {url} broke"))
            .with_source(error)
    }

    fn odd(&self, what: &str) -> Error {
        let url = self.base();
        Error::new(ErrorKind::Upstream, format!("the server at {url} is not what was expected: {what}"))
    }

    /// The error that a server answered with: ours in `detail`, else what can be read from an OpenAI body.
    async fn refusal(&self, response: Response) -> Error {
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
            .map(Duration::from_secs);
        let body = self.body(response, 1 << 20).await.unwrap_or_default();
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if let Some(detail) = value.get("detail")
            && let Ok(error) = serde_json::from_value::<Error>(detail.clone())
        {
            return match (error.retry_after(), retry_after) {
                (None, Some(after)) => error.with_retry_after(after),
                _ => error,
            };
        }
        let url = self.base();
        let message = value
            .get("error")
            .and_then(|error| error.get("message").unwrap_or(error).as_str())
            .map_or_else(|| format!("the server at {url} answered with status {status}"), str::to_owned);
        let told = |name: &str| value.get("error").and_then(|error| error.get(name)?.as_str());
        let kind = ErrorKind::ALL.into_iter().find(|kind| told("code") == Some(kind.code()));
        let error = Error::new(kind.unwrap_or_else(|| kind_of(status)), message);
        let error = match told("param") {
            Some(param) => error.with_param(param.to_owned()),
            None => error,
        };
        match retry_after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }
}

/// Whether a connection failed because of who answered.
fn is_certificate(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = inner.downcast_ref::<rustls::Error>() {
            return true;
        }
        // An input/output error names as its cause the cause of what it wraps, not what it wraps.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    false
}

/// The kind that a bare status means.
fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::Overloaded,
        503 => ErrorKind::Unavailable,
        504 => ErrorKind::DeadlineExceeded,
        400..500 => ErrorKind::InvalidRequest,
        _ => ErrorKind::Upstream,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        for (text, base) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://localhost:8000/", "http://localhost:8000"),
            (" http://[::1]:8000/prefix/ ", "http://[::1]:8000/prefix"),
        ] {
            let url = parse_url(text).unwrap();
            assert!(is_loopback(&url), "{text}");
            assert_eq!(Http::new(url, None).unwrap().base(), base);
        }
        assert_eq!(parse_url("https://gateway.example/").unwrap().scheme(), "https");
        for text in ["", "127.0.0.1:8000", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x#y"] {
            assert_eq!(parse_url(text).unwrap_err().param(), Some("url"), "{text}");
        }
        for text in ["http://192.168.0.1:1", "http://localhost.example.com", "http://127.0.0.1.example.com"] {
            assert!(!is_loopback(&parse_url(text).unwrap()), "{text}");
        }
    }
}
