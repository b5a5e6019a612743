//! One message and the head of its answer, over HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use byzerllm_core::{Error, ErrorKind, Result};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::body::{Body, HttpBody};
use super::connect::{Connector, Io, Link, Origin};
use super::failure::Failure;
use super::limits::{Clock, Phase};
use super::pool::{Connection, Pool};
use super::websocket;
use crate::Parameters;
use crate::dialect::{Framing, Outbound};

static AGENT: HeaderValue = HeaderValue::from_static(concat!("byzerllm/", env!("CARGO_PKG_VERSION")));
static JSON: HeaderValue = HeaderValue::from_static("application/json");
static EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// So long a connection that waited may take to be ready.
const SOON: Duration = Duration::from_millis(100);

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
}

impl Head {
    /// The id of the request in the field where most servers tell it.
    pub(crate) fn request_id(&self) -> Option<&str> {
        crate::refusal::header(&self.headers, &["x-request-id", "request-id"])
    }
}

/// The connections of one deployment.
pub(crate) struct Http {
    vendor: &'static str,
    connector: Connector,
    pool: Pool,
}

impl Http {
    pub(crate) fn new(vendor: &'static str, deployment: &str, parameters: &Parameters) -> Result<Self> {
        let connector = Connector::new(vendor, deployment, parameters)?;
        Ok(Self { vendor, connector, pool: Pool::default() })
    }

    /// The password of the proxy, for redaction.
    pub(crate) fn secret(&self) -> Option<&crate::Secret> {
        self.connector.proxy.as_ref().and_then(super::proxy::Proxy::secret)
    }

    /// Sends a message and waits for the head of the answer.
    pub(crate) async fn send(&self, outbound: Outbound, clock: &Clock) -> Result<(Head, Body), Failure> {
        if clock.is_over() {
            return Err(Failure::late(clock.error(Phase::Total, self.vendor), false));
        }
        if outbound.framing == Framing::WebSocket {
            return self.open_socket(outbound, clock).await;
        }
        let Outbound { method, url, headers, body, framing } = outbound;
        let mut request = self.request(method, &url, headers, body, framing)?;
        // The messages of one turn of the event loop are sent together, after everything else in it: a server that is
        // near is woken once and not for each.
        yield_now().await;
        loop {
            let pooled = self.pool.take(&url);
            let reused = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => self.connect(&url, clock).await?,
            };
            let (until, phase) = clock.first_byte();
            if !connection.sender.is_ready() {
                // One that served before is ready at once, or will not be soon: its server may have answered without
                // reading all of the question.
                let soon = if reused { until.min(Instant::now() + SOON) } else { until };
                match timeout_at(soon, connection.sender.ready()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) if reused => continue,
                    Ok(Err(error)) => return Err(Failure { billed: false, ..self.broken(&error, SENT) }),
                    Err(_) => return Err(Failure { billed: false, ..passed(clock, phase, self.vendor) }),
                }
            }
            let (parts, incoming) = match timeout_at(until, connection.sender.try_send_request(request)).await
            {
                Ok(Ok(response)) => response.into_parts(),
                Ok(Err(mut error)) => match error.take_message() {
                    // The server had closed a connection that waited; it has seen nothing of this request.
                    Some(back) if reused => {
                        request = back;
                        continue;
                    }
                    back => {
                        return Err(Failure { billed: back.is_none(), ..self.broken(error.error(), SENT) });
                    }
                },
                Err(_) => return Err(passed(clock, phase, self.vendor)),
            };
            let head = Head { status: parts.status.as_u16(), headers: parts.headers };
            let body = HttpBody::new(incoming, connection, self.pool.clone(), self.vendor);
            self.check(&url, &head)?;
            return Ok((head, Body::Http(body)));
        }
    }

    async fn connect(&self, url: &Url, clock: &Clock) -> Result<Connection, Failure> {
        let origin = Origin::of(url);
        let (until, phase) = clock.connect();
        let standing = timeout_at(until, self.connector.connect(&origin, false)).await;
        let link = match standing {
            Ok(link) => link.map_err(Failure::unreachable)?,
            Err(_) => return Err(Failure { billed: false, ..passed(clock, phase, self.vendor) }),
        };
        let opened = match link {
            Link::Plain(tcp) => self.handshake(tcp, origin).await,
            Link::Tls(tls) => self.handshake(tls, origin).await,
        };
        opened.map_err(|error| Failure { billed: false, ..self.broken(&error, SENT) })
    }

    async fn handshake<T: Io + 'static>(&self, io: T, origin: Origin) -> hyper::Result<Connection> {
        let (sender, driver) = http1::handshake(TokioIo::new(io)).await?;
        let task = tokio::spawn(async move {
            // What goes wrong is told to whoever waits for the answer.
            let _ = driver.await;
        });
        Ok(Connection { sender, origin, task: task.abort_handle() })
    }

    fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        framing: Framing,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let forwarded =
            url.scheme() == "http" && self.connector.proxy.as_ref().is_some_and(|proxy| proxy.forwards());
        let uri = if forwarded {
            Uri::try_from(&url[..url::Position::AfterQuery]).map_err(|_| self.odd_url())?
        } else {
            let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
            Uri::from(PathAndQuery::try_from(path).map_err(|_| self.odd_url())?)
        };
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let host = HeaderValue::from_str(host).map_err(|_| self.odd_url())?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.entry(USER_AGENT).or_insert_with(|| AGENT.clone());
        headers.entry(CONTENT_TYPE).or_insert_with(|| JSON.clone());
        let accept = if framing == Framing::Sse { &EVENTS } else { &JSON };
        headers.entry(ACCEPT).or_insert_with(|| accept.clone());
        if forwarded
            && let Some(value) = self.connector.proxy.as_ref().and_then(super::proxy::Proxy::authorization)
        {
            headers.insert(PROXY_AUTHORIZATION, value);
        }
        Ok(request)
    }

    async fn open_socket(&self, outbound: Outbound, clock: &Clock) -> Result<(Head, Body), Failure> {
        let origin = Origin::of(&outbound.url);
        let (until, phase) = clock.connect();
        let link = match timeout_at(until, self.connector.connect(&origin, true)).await {
            Ok(link) => link.map_err(Failure::unreachable)?,
            Err(_) => return Err(Failure { billed: false, ..passed(clock, phase, self.vendor) }),
        };
        let (until, phase) = clock.first_byte();
        match timeout_at(until, websocket::open(outbound, link.into_io(), self.vendor)).await {
            Ok(opened) => {
                let (head, body) = opened?;
                Ok((head, Body::Socket(Box::new(body))))
            }
            Err(_) => Err(passed(clock, phase, self.vendor)),
        }
    }

    /// What no dialect can make sense of.
    fn check(&self, url: &Url, head: &Head) -> Result<(), Failure> {
        let vendor = self.vendor;
        if (300..400).contains(&head.status) {
            let target = head.headers.get(LOCATION).and_then(|value| url.join(value.to_str().ok()?).ok());
            let target =
                target.map_or_else(|| "nowhere".to_owned(), |url| url.origin().ascii_serialization());
            let message = format!(
                "saas/{vendor} redirects to {target}; redirects are not followed, as they would carry the key there: \
                 set saas.base_url to where the API is"
            );
            let failure = Failure::broken(Error::new(ErrorKind::Upstream, message));
            return Err(Failure { retry: false, ..failure });
        }
        let encoding = head.headers.get(CONTENT_ENCODING).map_or(&b"identity"[..], HeaderValue::as_bytes);
        if !encoding.eq_ignore_ascii_case(b"identity") {
            let message = format!(
                "saas/{vendor} sent a compressed answer, which was not asked for; check saas.base_url"
            );
            let failure = Failure::broken(Error::new(ErrorKind::Upstream, message));
            return Err(Failure { retry: false, ..failure });
        }
        Ok(())
    }

    fn broken(&self, error: &hyper::Error, when: &str) -> Failure {
        broken(error, self.vendor, when)
    }

    fn odd_url(&self) -> Failure {
        let vendor = self.vendor;
        Failure::hopeless(Error::invalid(
            "saas.base_url",
            format!("saas/{vendor}: the URL of the API is not one for HTTP"),
        ))
    }
}

const SENT: &str = "before the answer came";

/// A connection that broke. What the library says of it names no part of a message.
pub(crate) fn broken(error: &hyper::Error, vendor: &str, when: &str) -> Failure {
    let message = if error.is_parse() {
        format!("saas/{vendor} sent something that is not HTTP ({error}); check saas.base_url")
    } else {
        format!("saas/{vendor} broke the connection {when}; try again")
    };
    Failure::broken(Error::new(ErrorKind::Upstream, message))
}

/// A limit that passed after the message was sent.
pub(crate) fn passed(clock: &Clock, phase: Phase, vendor: &str) -> Failure {
    let error = clock.error(phase, vendor);
    if phase == Phase::Total { Failure::late(error, true) } else { Failure::broken(error) }
}
