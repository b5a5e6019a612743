//! One message and the head of its answer, over HTTP/1.1.

use byzerllm_core::{Error, ErrorKind, Result};
use http::header::{
    ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, PROXY_AUTHORIZATION,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::task::yield_now;
use tokio::time::timeout_at;
use url::{Position, Url};

use super::body::{Body, HttpBody};
use super::connect::{Connector, Origin};
use super::connection::{Connection, Lost, Outgoing};
use super::failure::Failure;
use super::limits::{Clock, Phase};
use super::pool::Pool;
use super::proxy::Proxy;
use super::websocket;
use super::wire::Odd;
use crate::Parameters;
use crate::dialect::{Framing, Outbound};

const AGENT: &str = concat!("byzerllm/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// Where most servers tell the id of a request. Names as texts would be read anew for each answer.
static REQUEST_IDS: [HeaderName; 2] =
    [HeaderName::from_static("x-request-id"), HeaderName::from_static("request-id")];

/// What says how a message travels is written by us alone.
static OURS: [HeaderName; 4] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
}

impl Head {
    /// The id of the request where most servers tell it.
    pub(crate) fn request_id(&self) -> Option<&str> {
        REQUEST_IDS.iter().find_map(|name| self.headers.get(name)?.to_str().ok())
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
            return Box::pin(self.open_socket(outbound, clock)).await;
        }
        let url = &outbound.url;
        let message = self.message(&outbound)?;
        // The messages of one turn of the event loop are sent together, after everything else in it: a server that is
        // near is woken once and not for each.
        yield_now().await;
        loop {
            let pooled = self.pool.take(url);
            let reused = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                // Several times as large as everything else of a request, and most need none.
                None => Box::pin(self.connect(url, clock)).await?,
            };
            let (until, phase) = clock.first_byte();
            let head = match timeout_at(until, connection.send(&message)).await {
                Ok(Ok(head)) => head,
                // The server had closed a connection that waited; it has seen nothing of this message.
                Ok(Err(Lost::Unsent)) if reused => continue,
                Ok(Err(lost)) => {
                    let billed = !matches!(lost, Lost::Unsent);
                    return Err(Failure { billed, ..broken(&lost, self.vendor, "before the answer came") });
                }
                Err(_) => return Err(passed(clock, phase, self.vendor)),
            };
            let body = HttpBody::new(connection, self.pool.clone(), self.vendor);
            self.check(url, &head)?;
            return Ok((head, Body::Http(body)));
        }
    }

    async fn connect(&self, url: &Url, clock: &Clock) -> Result<Connection, Failure> {
        let origin = Origin::of(url);
        let (until, phase) = clock.connect();
        match timeout_at(until, self.connector.connect(&origin, false)).await {
            Ok(link) => Ok(Connection::new(link.map_err(Failure::unreachable)?, origin)),
            Err(_) => Err(Failure { billed: false, ..passed(clock, phase, self.vendor) }),
        }
    }

    /// A message as it goes over the wire. What a dialect sets itself stands in place of what is usual.
    fn message(&self, outbound: &Outbound) -> Result<Outgoing, Failure> {
        let Outbound { method, url, headers, body, framing } = outbound;
        let proxy = self.connector.proxy.as_ref().filter(|proxy| url.scheme() == "http" && proxy.forwards());
        let from = if proxy.is_some() { Position::BeforeScheme } else { Position::BeforePath };
        let host = &url[Position::BeforeHost..Position::AfterPort];
        if host.is_empty() {
            return Err(self.odd_url());
        }
        let mut head = Vec::with_capacity(512 + body.len().min(16 << 10));
        for part in [method.as_str(), " ", &url[from..Position::AfterQuery], " HTTP/1.1"] {
            head.extend_from_slice(part.as_bytes());
        }
        field(&mut head, &HOST, host.as_bytes());
        for (name, value) in headers.iter().filter(|(name, _)| !OURS.contains(name)) {
            field(&mut head, name, value.as_bytes());
        }
        let accept = if *framing == Framing::Sse { EVENTS } else { JSON };
        for (name, usual) in [(USER_AGENT, AGENT), (CONTENT_TYPE, JSON), (ACCEPT, accept)] {
            if !headers.contains_key(&name) {
                field(&mut head, &name, usual.as_bytes());
            }
        }
        if let Some(value) = proxy.and_then(Proxy::authorization) {
            field(&mut head, &PROXY_AUTHORIZATION, value.as_bytes());
        }
        if !body.is_empty() || method != Method::GET {
            field(&mut head, &CONTENT_LENGTH, body.len().to_string().as_bytes());
        }
        head.extend_from_slice(b"\r\n\r\n");
        Ok(Outgoing::new(head, body.clone()))
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

    fn odd_url(&self) -> Failure {
        let vendor = self.vendor;
        Failure::hopeless(Error::invalid(
            "saas.base_url",
            format!("saas/{vendor}: the URL of the API is not one for HTTP"),
        ))
    }
}

/// A header line, with the end of the line before it.
fn field(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [&b"\r\n"[..], name.as_str().as_bytes(), b": ", value] {
        head.extend_from_slice(part);
    }
}

/// A connection that broke. What is said of it names no part of a message.
pub(crate) fn broken(lost: &Lost, vendor: &str, when: &str) -> Failure {
    let message = match lost {
        Lost::Odd(Odd(what)) => {
            format!("saas/{vendor} sent something that is not HTTP ({what}); check saas.base_url")
        }
        Lost::Unsent | Lost::Broken => {
            format!("saas/{vendor} broke the connection {when}; try again")
        }
    };
    Failure::broken(Error::new(ErrorKind::Upstream, message))
}

/// A limit that passed after the message was sent.
pub(crate) fn passed(clock: &Clock, phase: Phase, vendor: &str) -> Failure {
    let error = clock.error(phase, vendor);
    if phase == Phase::Total { Failure::late(error, true) } else { Failure::broken(error) }
}
