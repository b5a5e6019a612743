//! Who gets in.
//!
//! [`guard`] stands before every route and before the answer to unknown ones: a web page must not reach the server,
//! neither by a simple request (`Origin`) nor by a name that it points at this machine (`Host`). [`admit`] stands
//! before each known route and demands what its [`Access`] demands. No answer carries a CORS header.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{Ipv4Addr, Ipv6Addr};
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::router::Access;
use crate::state::{AppState, ServerOptions};

/// The rules, made once from the options.
pub(crate) struct Guard {
    port: u16,
    hosts: Vec<String>,
    origins: Vec<String>,
    admin_token: String,
}

impl Guard {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let lower = |list: &[String]| list.iter().map(|entry| entry.trim().to_ascii_lowercase()).collect();
        Self {
            port: options.address.port(),
            hosts: lower(&options.allowed_hosts),
            origins: lower(&options.allowed_origins),
            admin_token: options.admin_token.clone(),
        }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
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
                    "Host '{name}' is not served here; use a loopback name with port {}, or start the server with \
                     this name among its allowed hosts",
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
        let host = host.to_ascii_lowercase();
        let Some((name, port)) = split_host(&host) else { return false };
        let loopback = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
            None => {
                name == "localhost" || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            }
        };
        (loopback && port.unwrap_or(80) == self.port)
            || self.hosts.iter().any(|allowed| *allowed == host || *allowed == name)
    }

    fn is_admin(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some(token) = bearer(value) else { return false };
        !self.admin_token.is_empty() && bool::from(token.ct_eq(self.admin_token.as_bytes()))
    }
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

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Before everything: Host and Origin.
pub(crate) async fn guard(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    state.guard.check(&request)?;
    Ok(next.run(request).await)
}

/// Before one route: its credential, and JSON bodies only.
pub(crate) async fn admit(
    State((state, access)): State<(AppState, Access)>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if access == Access::Admin && !state.guard.is_admin(request.headers()) {
        let message = "this route needs the admin token as `Authorization: Bearer TOKEN`; `byzerllm serve` writes it \
                       to the runtime directory of its user";
        return Err(ApiError::http(StatusCode::UNAUTHORIZED, "unauthenticated", message));
    }
    if has_body(&request) && !is_json(request.headers()) {
        let message = "send the body as JSON, with `Content-Type: application/json`";
        return Err(ApiError::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    Ok(next.run(request).await)
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
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str]) -> Guard {
        Guard::new(&ServerOptions {
            address: ([127, 0, 0, 1], 8000).into(),
            allowed_hosts: hosts.iter().map(ToString::to_string).collect(),
            allowed_origins: Vec::new(),
            admin_token: "secret".to_owned(),
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
    fn only_the_exact_bearer_token_is_admin() {
        let guard = rules(&[]);
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        assert!(guard.is_admin(&headers(&["Bearer secret"])));
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
            assert!(!guard.is_admin(&headers(values)), "{values:?}");
        }
        let open = Guard { admin_token: String::new(), ..rules(&[]) };
        assert!(!open.is_admin(&headers(&["Bearer "])));
    }
}
