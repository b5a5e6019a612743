//! Who gets in.
//!
//! [`Guard::check`] stands before every route and before the answer to unknown ones: a web page must not reach the
//! server, neither by a simple request (`Origin`) nor by a name that it points at this machine (`Host`). [`admit`] stands
//! before each known route and demands what its [`Access`] demands; it leaves a [`Caller`] for the handler, and
//! hides deployments that are not the caller's. No answer carries a CORS header.

use axum::extract::{RawPathParams, Request};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use byzerllm_runtime::{KeyRefusal, Keys};
use std::net::{IpAddr, Ipv6Addr};
use subtle::ConstantTimeEq;

use crate::caller::Caller;
use crate::error::{ApiError, mask};
use crate::router::Access;
use crate::state::{AppState, ServerOptions};

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The rules, made once from the options.
pub(crate) struct Guard {
    address: IpAddr,
    port: u16,
    /// The port that a URL without one means.
    default_port: u16,
    hosts: Vec<String>,
    /// Names for which the rules were asked already, as nearly every request has one of them.
    usual: Vec<String>,
    origins: Vec<String>,
    admin_token: String,
}

impl Guard {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let lower = |list: &[String]| list.iter().map(|entry| entry.trim().to_ascii_lowercase()).collect();
        let port = options.address.port();
        let mut guard = Self {
            address: options.address.ip(),
            port,
            default_port: if options.tls.is_some() { 443 } else { 80 },
            hosts: lower(&options.allowed_hosts),
            usual: Vec::new(),
            origins: lower(&options.allowed_origins),
            admin_token: options.admin_token.clone(),
        };
        let usual = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), options.address.to_string()];
        guard.usual = usual.into_iter().filter(|host| guard.follows_rules(host)).collect();
        guard
    }

    /// Before everything: `Host` and `Origin`.
    pub(crate) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (first, second) = (hosts.next(), hosts.next());
        let host = match (first, second) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            (None, _) => return Err(refuse_host("the Host header is missing".to_owned())),
            (Some(_), Some(_)) => return Err(refuse_host("there is more than one Host header".to_owned())),
        };
        let target = request.uri().authority().map(axum::http::uri::Authority::as_str);
        for name in std::iter::once(host).chain(target) {
            if !self.host_allowed(name) {
                let name: String = name.chars().take(100).collect();
                return Err(refuse_host(format!(
                    "Host '{name}' is not served here; use {} with port {}, or start the server with this name among \
                     its allowed hosts (--allow-host)",
                    if self.address.is_loopback() { "a loopback name" } else { "the server's address" },
                    self.port
                )));
            }
        }
        for origin in request.headers().get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
            if !self.origins.contains(&origin) {
                let message = "requests from web pages are refused; start the server with this page's origin among \
                               its allowed origins";
                return Err(ApiError::http(StatusCode::FORBIDDEN, "origin_refused", message));
            }
        }
        Ok(())
    }

    fn host_allowed(&self, host: &str) -> bool {
        self.usual.iter().any(|usual| usual == host) || self.follows_rules(host)
    }

    fn follows_rules(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let Some((name, port)) = split_host(&host) else { return false };
        let address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None if name == "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            None => name.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
        };
        let own = address.is_some_and(|address| match self.address {
            bound if bound.is_loopback() => address.is_loopback(),
            // Bound to every address of the machine. A page's owner can point names here, but no numbers.
            bound if bound.is_unspecified() => !address.is_unspecified(),
            bound => address == bound,
        });
        (own && port.unwrap_or(self.default_port) == self.port)
            || self.hosts.iter().any(|allowed| *allowed == host || *allowed == name)
    }

    /// Who calls a route of the class, or why nobody may with this credential.
    fn authorise(&self, keys: &Keys, headers: &HeaderMap, access: Access) -> Result<Caller, ApiError> {
        let open = access == Access::Inference && self.address.is_loopback() && !keys.exist();
        if access == Access::Public || open {
            return Ok(Caller::open(access));
        }
        let credential = credential(headers).ok_or_else(|| unauthenticated(access))?;
        if self.is_admin_token(credential) {
            return Ok(Caller::owner(access));
        }
        let grant = keys.authenticate(credential).map_err(|refusal| match refusal {
            KeyRefusal::Unknown => unauthenticated(access),
            KeyRefusal::Expired => {
                let message = "this key has expired; ask the server's owner for a new one";
                ApiError::http(StatusCode::UNAUTHORIZED, "key_expired", message)
            }
        })?;
        let (allowed, message) = match access {
            Access::Admin => {
                (grant.scopes.admin(), "this key may not manage the server: it has no scope admin")
            }
            Access::Metrics => (
                grant.scopes.metrics(),
                "this key may not read metrics: it has neither scope metrics nor admin",
            ),
            _ => (grant.scopes.any_inference(), "this key may not ask models: it has no scope for inference"),
        };
        if !allowed {
            return Err(ApiError::http(StatusCode::FORBIDDEN, "permission_denied", message));
        }
        Ok(Caller::with_key(grant, access))
    }

    fn is_admin_token(&self, credential: &[u8]) -> bool {
        !self.admin_token.is_empty() && bool::from(credential.ct_eq(self.admin_token.as_bytes()))
    }
}

/// One answer to everything that is no credential, so that it tells nothing.
fn unauthenticated(access: Access) -> ApiError {
    let message = match access {
        Access::Admin => {
            "this route needs the admin token, or a key with the scope admin, as `Authorization: Bearer TOKEN`; \
             `byzerllm serve` writes the token to the runtime directory of its user"
        }
        Access::Metrics => {
            "this route needs the admin token, or a key with the scope metrics or admin, as `Authorization: Bearer \
             bz-…`; the server's owner makes one with `byzerllm keys create --name NAME --scope metrics`"
        }
        _ => {
            "this server asks for a key, as `Authorization: Bearer bz-…` or `x-api-key: bz-…`; its owner makes one with \
             `byzerllm keys create --name NAME`"
        }
    };
    ApiError::http(StatusCode::UNAUTHORIZED, "unauthenticated", message)
}

fn refuse_host(message: String) -> ApiError {
    ApiError::http(StatusCode::FORBIDDEN, "host_refused", message)
}

/// Cuts `name[:port]`; the brackets of an IPv6 address stay.
fn split_host(host: &str) -> Option<(&str, Option<u16>)> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, rest) = host.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    match rest.strip_prefix(':') {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((name, Some(port.parse().ok()?)))
        }
        None if rest.is_empty() => Some((name, None)),
        _ => None,
    }
}

/// The one credential of a request: `Authorization: Bearer`, as OpenAI's clients send it, or `x-api-key`, as Anthropic's
/// do. Two that differ are none.
fn credential(headers: &HeaderMap) -> Option<&[u8]> {
    let mut found: Option<&[u8]> = None;
    let bearers = headers.get_all(AUTHORIZATION).iter().map(bearer);
    let keys = headers.get_all(&API_KEY).iter().map(|value| Some(value.as_bytes()));
    let single = |name: &HeaderName| headers.get_all(name).iter().count() <= 1;
    if !single(&AUTHORIZATION) || !single(&API_KEY) {
        return None;
    }
    for value in bearers.chain(keys) {
        let value = value?;
        if found.is_some_and(|other| !bool::from(other.ct_eq(value))) {
            return None;
        }
        found = Some(value);
    }
    found
}

/// Whether the request forbids answers that were kept, and keeping its own.
fn forbids_kept_answers(headers: &HeaderMap) -> bool {
    let mut words =
        headers.get_all(CACHE_CONTROL).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-store"))
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Before one route: its credential, the deployments in its path, and JSON bodies only.
pub(crate) async fn admit(
    state: &AppState,
    access: Access,
    parameters: &RawPathParams,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = state
        .guard
        .authorise(state.runtime.keys(), request.headers(), access)?
        .forbidding_kept_answers(forbids_kept_answers(request.headers()));
    if has_body(&request) && !is_json(request.headers()) {
        let message = "send the body as JSON, with `Content-Type: application/json`";
        return Err(ApiError::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    // What an inference route has in its path is the name of a deployment.
    for (_, name) in parameters {
        caller.check(name)?;
    }
    request.extensions_mut().insert(caller.clone());
    Ok(mask(next.run(request).await, |error| caller.shown(error)))
}

fn has_body(request: &Request) -> bool {
    let headers = request.headers();
    let empty = |value: &HeaderValue| value.as_bytes() == b"0";
    *request.method() == Method::POST
        || headers.contains_key("transfer-encoding")
        || headers.get("content-length").is_some_and(|value| !empty(value))
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    if value == "application/json" {
        return true;
    }
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use byzerllm_runtime::{Runtime, RuntimeOptions};

    use super::*;

    fn rules(hosts: &[&str]) -> Guard {
        Guard::new(&ServerOptions {
            address: ([127, 0, 0, 1], 8000).into(),
            allowed_hosts: hosts.iter().map(ToString::to_string).collect(),
            allowed_origins: Vec::new(),
            admin_token: "secret".to_owned(),
            tls: None,
        })
    }

    #[test]
    fn loopback_names_with_the_own_port_are_hosts() {
        let guard = rules(&["Gateway.Example", "other.example:9000"]);
        for host in [
            "localhost:8000",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "127.1.2.3:8000",
            "[::1]:8000",
            "gateway.example",
            "gateway.example:1234",
            "other.example:9000",
        ] {
            assert!(guard.host_allowed(host), "{host}");
        }
        for host in [
            "",
            "localhost",
            "localhost:80",
            "localhost:8001",
            "localhost:8000:8000",
            "localhost:",
            "localhost:+8000",
            "localhost.evil.example:8000",
            "evil.example:8000",
            "user@localhost:8000",
            "localhost:8000@evil.example",
            "10.0.0.1:8000",
            "0.0.0.0:8000",
            "127.0.0.1.evil.example:8000",
            "[::1]8000",
            "[::1",
            "[::2]:8000",
            "other.example",
            "other.example:8000",
        ] {
            assert!(!guard.host_allowed(host), "{host}");
        }
    }

    #[test]
    fn a_public_address_has_its_own_host_and_the_listed_ones() {
        let bound = |address: &str| {
            Guard::new(&ServerOptions {
                address: address.parse().unwrap(),
                allowed_hosts: vec!["gateway.example".to_owned()],
                allowed_origins: Vec::new(),
                admin_token: "secret".to_owned(),
                tls: None,
            })
        };
        let one = bound("192.0.2.1:80");
        for host in ["192.0.2.1", "192.0.2.1:80", "gateway.example"] {
            assert!(one.host_allowed(host), "{host}");
        }
        for host in ["192.0.2.2", "192.0.2.1:81", "localhost", "127.0.0.1", "evil.example", "[::1]"] {
            assert!(!one.host_allowed(host), "{host}");
        }
        let every = bound("[::]:8000");
        for host in ["192.0.2.1:8000", "[2001:db8::1]:8000", "localhost:8000", "gateway.example:8000"] {
            assert!(every.host_allowed(host), "{host}");
        }
        for host in ["192.0.2.1", "0.0.0.0:8000", "evil.example:8000", "192.0.2.1.evil.example:8000"] {
            assert!(!every.host_allowed(host), "{host}");
        }
    }

    #[tokio::test]
    async fn only_the_exact_bearer_token_is_admin() {
        let guard = rules(&[]);
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        let keys = Runtime::open_with(
            RuntimeOptions::default(),
            byzerllm_runtime::testing::ScriptedLoader::new(|_| {
                Err(byzerllm_core::Error::internal("nothing is loaded here"))
            }),
        );
        let runtime = keys.await.unwrap();
        let is_admin = |guard: &Guard, headers: &HeaderMap| {
            guard.authorise(runtime.keys(), headers, Access::Admin).is_ok()
        };
        assert!(is_admin(&guard, &headers(&["Bearer secret"])));
        let with_key = |values: &[&str], keys: &[&str]| {
            let mut headers = headers(values);
            for key in keys {
                headers.append(&API_KEY, HeaderValue::from_str(key).unwrap());
            }
            is_admin(&guard, &headers)
        };
        assert!(with_key(&[], &["secret"]) && with_key(&["Bearer secret"], &["secret"]));
        for (values, keys) in [
            (&[][..], &["Bearer secret"][..]),
            (&[], &["secre"]),
            (&[], &[""]),
            (&[], &["secret", "secret"]),
            (&["Bearer other"], &["secret"]),
            (&["Bearer secret"], &["other"]),
            (&["Basic secret"], &["secret"]),
        ] {
            assert!(!with_key(values, keys), "{values:?} {keys:?}");
        }
        for values in [
            &["secret"][..],
            &["Basic secret"],
            &["Bearer secre"],
            &["Bearer secrets"],
            &["Bearer "],
            &["Bearer"],
            &[],
            &["Bearer secret", "Bearer secret"],
        ] {
            assert!(!is_admin(&guard, &headers(values)), "{values:?}");
        }
        let open = Guard { admin_token: String::new(), ..rules(&[]) };
        assert!(!is_admin(&open, &headers(&["Bearer "])));
    }
}
