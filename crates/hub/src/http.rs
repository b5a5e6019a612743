//! Requests: redirects that we follow ourselves, credentials that stay at their origin, retries.
//!
//! A credential is attached to a request only while its URL has the origin that the credential was configured for,
//! so that it never reaches the storage host that a hub redirects to. Addresses are logged without their query.

use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Response, StatusCode, Url, redirect};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::checksum::Sum;
use crate::settings::{Secret, Settings};
use crate::{Problem, Result};

/// Hops of one request at most.
const MAX_REDIRECTS: usize = 10;
/// The longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// The largest listing that is read.
const MAX_LISTING: usize = 16 << 20;

/// What is shown to one origin.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    origin: reqwest::Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The variable that the user sets it with.
    pub(crate) variable: &'static str,
}

impl Credential {
    /// No secret yet, but the name of the variable to set one.
    pub(crate) fn none(origin: &Url, variable: &'static str) -> Self {
        Self { origin: origin.clone(), headers: Vec::new(), variable }
    }

    /// Adds a header with a secret in it.
    pub(crate) fn with(mut self, name: HeaderName, before: &str, secret: &Secret) -> Result<Self> {
        let mut value =
            HeaderValue::from_str(&format!("{before}{}", secret.reveal())).map_err(|_| Problem::Setting {
                what: format!("{} has characters that no token has", self.variable),
                remedy: format!("Set {} again, without line breaks.", self.variable),
            })?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }
}

/// An answer with what the hops before it said about the file.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// SHA-256 of a large file, from the hub itself.
    pub(crate) sum: Option<Sum>,
    /// Its size, from the hub itself.
    pub(crate) size: Option<u64>,
    /// The commit that was answered from.
    pub(crate) commit: Option<String>,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }
}

/// Why one try failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another try may help, after this long.
    Again(String, Option<Duration>),
    /// Nothing helps.
    Final(Problem),
}

/// The network.
#[derive(Debug)]
pub(crate) struct Web {
    client: reqwest::Client,
    pub(crate) permits: Semaphore,
    attempts: u32,
    pause: Duration,
}

impl Web {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        // Whoever comes first wins; all of this workspace install the same provider.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_secs(60))
            .user_agent(concat!("byzerllm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Problem::Setting {
                what: format!("no HTTP client could be made: {error}"),
                remedy: "Check the proxy variables and the system's certificates.".into(),
            })?;
        Ok(Self {
            client,
            permits: Semaphore::new(settings.connections.clamp(1, 64)),
            attempts: settings.attempts.max(1),
            pause: settings.pause,
        })
    }

    /// One try, following redirects.
    pub(crate) async fn attempt(
        &self,
        url: &Url,
        credential: Option<&Credential>,
        header: Option<(HeaderName, String)>,
    ) -> Result<Answer, Fault> {
        let mut url = url.clone();
        let (mut sum, mut size, mut commit) = (None, None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some((name, value)) = &header {
                request = request.header(name, value);
            }
            if let Some(credential) = credential
                && credential.origin.origin() == url.origin()
            {
                for (name, value) in &credential.headers {
                    request = request.header(name, value);
                }
            }
            tracing::debug!(url = %shown(&url), "get");
            let response = request.send().await.map_err(|error| Fault::Again(reason(&error), None))?;
            let headers = response.headers();
            sum = sum.or_else(|| text(headers, "x-linked-etag").and_then(Sum::sha256));
            size = size.or_else(|| text(headers, "x-linked-size").and_then(|size| size.parse().ok()));
            commit = commit.or_else(|| text(headers, "x-repo-commit").map(str::to_owned));
            let status = response.status();
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                url = next(&url, headers).map_err(Fault::Final)?;
                continue;
            }
            if status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            {
                return Err(Fault::Again(format!("the server answered {status}"), pause_asked(headers)));
            }
            return Ok(Answer { response, sum, size, commit });
        }
        Err(Fault::Final(Problem::Answer { place: place(&url), why: "it redirects in circles".into() }))
    }

    /// As [`Web::attempt`], again and again while that may help.
    pub(crate) async fn get(
        &self,
        url: &Url,
        credential: Option<&Credential>,
        header: Option<(HeaderName, String)>,
    ) -> Result<Answer> {
        let mut failures = 0;
        loop {
            match self.attempt(url, credential, header.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => self.rest(url, fault, &mut failures).await?,
            }
        }
    }

    /// Waits before another try, or gives up.
    pub(crate) async fn rest(&self, url: &Url, fault: Fault, failures: &mut u32) -> Result<()> {
        let (why, asked) = match fault {
            Fault::Final(problem) => return Err(problem),
            Fault::Again(why, asked) => (why, asked),
        };
        *failures += 1;
        if *failures >= self.attempts {
            return Err(Problem::Network {
                place: place(url),
                why: format!("{why} (tried {failures} times)"),
            });
        }
        let doubled = self.pause.saturating_mul(1 << (*failures - 1).min(6));
        let wait = asked.unwrap_or(doubled).min(MAX_PAUSE);
        tracing::info!(place = place(url), why, wait_ms = wait.as_millis() as u64, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Reads a listing. A status other than success comes back with its headers for the caller to explain.
    pub(crate) async fn json(
        &self,
        url: &Url,
        credential: Option<&Credential>,
        accept: &str,
    ) -> Result<Result<Value, (StatusCode, HeaderMap)>> {
        let mut failures = 0;
        loop {
            let answer = self.get(url, credential, Some((ACCEPT, accept.to_owned()))).await?;
            if !answer.status().is_success() {
                return Ok(Err((answer.status(), answer.response.headers().clone())));
            }
            match body(answer.response, url).await {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes).map(Ok).map_err(|error| Problem::Answer {
                        place: place(url),
                        why: format!("it is no JSON: {error}"),
                    });
                }
                Err(fault) => self.rest(url, fault, &mut failures).await?,
            }
        }
    }
}

async fn body(response: Response, url: &Url) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Fault::Again(reason(&error), None))?;
        if bytes.len() + piece.len() > MAX_LISTING {
            let why = format!("the listing is longer than {} MiB", MAX_LISTING >> 20);
            return Err(Fault::Final(Problem::Answer { place: place(url), why }));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The address that a redirect names.
fn next(url: &Url, headers: &HeaderMap) -> Result<Url> {
    let refuse = |why: &str| Problem::Answer { place: place(url), why: why.into() };
    let location = text(headers, LOCATION.as_str()).ok_or_else(|| refuse("a redirect names no address"))?;
    let next = url.join(location).map_err(|_| refuse("a redirect names no address"))?;
    match (url.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        _ => Err(refuse("a redirect leaves https")),
    }
}

/// A range header for bytes `start..end`.
pub(crate) fn range(start: u64, end: u64) -> (HeaderName, String) {
    (RANGE, format!("bytes={start}-{}", end.saturating_sub(1)))
}

fn pause_asked(headers: &HeaderMap) -> Option<Duration> {
    text(headers, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs)
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whom an address belongs to, for messages.
pub(crate) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the server");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn shown(url: &Url) -> String {
    crate::reference::without_query(url.as_str())
}

/// The innermost reason of a failed request; the outer ones only repeat the address.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { source.to_string() }
}

/// Parses a configured address.
pub(crate) fn endpoint(text: &str, variable: &str) -> Result<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(
        || Problem::Setting {
            what: format!("{variable} is no http address"),
            remedy: format!("Set {variable} to something like https://host."),
        },
    )
}

/// Explains a status that is no success.
pub(crate) fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    url: &Url,
    what: &str,
    credential: Option<&Credential>,
    hint: String,
) -> Problem {
    let code = text(headers, "x-error-code").unwrap_or_default();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Problem::Denied {
            what: what.to_owned(),
            place: place(url),
            variable: credential.map_or("the token's variable", |credential| credential.variable),
            had_token: credential.is_some_and(|credential| !credential.is_empty()),
            gated: code == "GatedRepo",
        },
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let what =
                if code == "RevisionNotFound" { format!("the revision of {what}") } else { what.to_owned() };
            Problem::Missing { what, place: place(url), hint }
        }
        _ => Problem::Network { place: place(url), why: format!("{what}: the server answered {status}") },
    }
}
