//! Errors in OpenAI's words, and in those of the vendors that almost speak them.

use std::time::Duration;

use byzerllm_core::{Error, ErrorKind};
use http::HeaderMap;
use serde_json::Value;

use crate::transport::retry_after_span;

/// What an error of a vendor means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The deployment's own credential is wrong. No fault of the caller, so not [`ErrorKind::Unauthenticated`].
    Credential,
    /// The deployment's account has no money or quota left. Trying again does not help.
    Balance,
    /// The deployment's account may not do this.
    Permission,
    /// There is no such model or address.
    NotFound,
    /// The input is too long.
    TooLarge,
    /// A content filter refused the input or the answer.
    Filtered,
    /// The vendor does not have what was asked for.
    Unsupported,
    /// The request is wrong.
    Invalid,
    /// Too many requests or tokens; later is fine.
    RateLimited,
    /// The vendor is full.
    Overloaded,
    /// The vendor failed.
    Failed,
}

/// Words of OpenAI and of those that write their errors alike.
const WORDS: &[(&str, Meaning)] = &[
    ("invalid_api_key", Meaning::Credential),
    ("incorrect_api_key_error", Meaning::Credential),
    ("invalid_authentication_error", Meaning::Credential),
    ("authentication_error", Meaning::Credential),
    ("AuthenticationError*", Meaning::Credential),
    ("insufficient_quota", Meaning::Balance),
    ("insufficient_balance*", Meaning::Balance),
    ("billing_hard_limit_reached", Meaning::Balance),
    ("billing_not_active", Meaning::Balance),
    ("exceeded_current_quota_error", Meaning::Balance),
    ("permission_denied_error", Meaning::Permission),
    ("permission_error", Meaning::Permission),
    ("model_not_found", Meaning::NotFound),
    ("DeploymentNotFound", Meaning::NotFound),
    ("resource_not_found_error", Meaning::NotFound),
    ("not_found_error", Meaning::NotFound),
    ("context_length_exceeded", Meaning::TooLarge),
    ("string_above_max_length", Meaning::TooLarge),
    ("request_too_large", Meaning::TooLarge),
    ("content_filter*", Meaning::Filtered),
    ("content_policy_violation", Meaning::Filtered),
    ("ResponsibleAIPolicyViolation", Meaning::Filtered),
    ("unsupported_parameter", Meaning::Unsupported),
    ("unsupported_value", Meaning::Unsupported),
    ("rate_limit_exceeded", Meaning::RateLimited),
    ("rate_limit_reached_error", Meaning::RateLimited),
    ("rate_limit_error", Meaning::RateLimited),
    ("engine_overloaded_error", Meaning::Overloaded),
    ("overloaded_error", Meaning::Overloaded),
    ("server_overloaded", Meaning::Overloaded),
    ("service_unavailable*", Meaning::Overloaded),
    ("server_error", Meaning::Failed),
    ("internal_error", Meaning::Failed),
    ("internal_server_error", Meaning::Failed),
];

/// Header fields that hold the vendor's id of a request.
const ID_FIELDS: &[&str] = &[
    "x-request-id",
    "apim-request-id",
    "x-ds-trace-id",
    "x-siliconcloud-trace-id",
    "x-bc-request-id",
    "msh-request-id",
    "x-tt-logid",
    "x-log-id",
    "request-id",
];

/// The longest piece of a vendor's message that is handed on, in characters.
const MAX_MESSAGE: usize = 600;

/// An error answer: its status, its header and its body.
pub(super) fn answer(
    vendor: &str,
    codes: &'static [(&'static str, Meaning)],
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    let mut said =
        serde_json::from_slice(body).ok().and_then(|body: Value| Said::read(&body)).unwrap_or_default();
    if said.message.is_empty() {
        said.message = plain(body);
    }
    let mut error = describe(vendor, codes, status, &said);
    if matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Overloaded | ErrorKind::Upstream)
        && let Some(after) = retry_after(headers)
    {
        error = error.with_retry_after(after);
    }
    let field = ID_FIELDS.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    match field.map(str::to_owned).or(said.request_id) {
        Some(id) => error.with_vendor_request_id(id.chars().take(256).collect::<String>()),
        None => error,
    }
}

/// The error in a frame of a stream, or in a body that came as a success.
pub(super) fn inside(vendor: &str, codes: &'static [(&'static str, Meaning)], data: &[u8]) -> Option<Error> {
    let body: Value = serde_json::from_slice(data).ok()?;
    let said = Said::read(&body)?;
    let error = describe(vendor, codes, 0, &said);
    Some(match said.request_id {
        Some(id) => error.with_vendor_request_id(id),
        None => error,
    })
}

/// What a vendor says about an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Its message.
    pub message: String,
    /// Its words for what happened, the most precise first.
    pub codes: Vec<String>,
    /// The parameter at fault.
    pub param: Option<String>,
    /// Its id of the request.
    pub request_id: Option<String>,
}

impl Said {
    /// Reads a body in any of the usual shapes; `None` when it speaks of no error.
    fn read(body: &Value) -> Option<Self> {
        // Gemini's way through this dialect wraps the object into a list.
        let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
        if let Value::String(message) = body {
            return Some(Self { message: message.clone(), ..Self::default() });
        }
        let inner = match body.get("error") {
            Some(Value::String(message)) => {
                let codes = words(&[body.get("code"), body.get("error_code")]);
                return Some(Self { message: message.clone(), codes, param: None, request_id: id(body) });
            }
            Some(inner @ Value::Object(_)) => inner,
            _ => body,
        };
        let message =
            ["message", "msg", "error_msg", "detail"].iter().find_map(|name| text(inner.get(*name)?));
        let codes = words(&[
            inner.get("innererror").and_then(|inner| inner.get("code")),
            inner.get("code"),
            inner.get("error_code"),
            inner.get("type"),
        ]);
        // A type alone is no error: `{"type": "ping"}`.
        let is_error = message.is_some() || inner.get("code").or_else(|| inner.get("error_code")).is_some();
        (std::ptr::from_ref(inner) != std::ptr::from_ref(body) || is_error).then(|| Self {
            message: message.unwrap_or_default(),
            codes,
            param: inner
                .get("param")
                .and_then(Value::as_str)
                .filter(|param| !param.is_empty())
                .map(str::to_owned),
            request_id: id(body).or_else(|| id(inner)),
        })
    }
}

fn id(body: &Value) -> Option<String> {
    ["request_id", "requestId", "id"].iter().find_map(|name| body.get(*name)?.as_str().map(str::to_owned))
}

/// Text, or FastAPI's list of complaints.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let complaints: Vec<String> = list
                .iter()
                .filter_map(|entry| {
                    let place: Vec<String> =
                        entry.get("loc").and_then(Value::as_array).into_iter().flatten().map(word).collect();
                    Some(format!("{}: {}", place.join("."), entry.get("msg")?.as_str()?))
                })
                .collect();
            (!complaints.is_empty()).then(|| complaints.join("; "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn words(values: &[Option<&Value>]) -> Vec<String> {
    let given = values.iter().flatten().filter(|value| matches!(value, Value::String(_) | Value::Number(_)));
    given.map(|value| word(value)).filter(|word| !word.is_empty()).collect()
}

/// A body that is no JSON: shown when it is a short text, and not when it is a page.
fn plain(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if text.starts_with(['<', '{', '[']) { String::new() } else { text.chars().take(200).collect() }
}

/// An error from what a vendor said and the status it came with; 0 for none.
#[must_use]
pub fn describe(vendor: &str, codes: &[(&str, Meaning)], status: u16, said: &Said) -> Error {
    let meaning = meaning(codes, status, said);
    let shown: String =
        said.message.chars().take(MAX_MESSAGE).filter(|c| !c.is_control() || *c == '\n').collect();
    let shown = match (shown.trim(), status) {
        ("", 0) => "no message".to_owned(),
        ("", status) => format!("HTTP {status} without a message"),
        (text, _) => text.to_owned(),
    };
    let error = match meaning {
        // Their messages quote pieces of the key.
        Meaning::Credential => Error::new(
            ErrorKind::PermissionDenied,
            format!("{vendor} refused this deployment's credential; check its saas.api_key"),
        ),
        Meaning::Balance => Error::new(
            ErrorKind::PermissionDenied,
            format!("the account of this deployment at {vendor} has no balance or quota left: {shown}"),
        ),
        Meaning::Permission => Error::new(
            ErrorKind::PermissionDenied,
            format!("{vendor} does not allow this to the account of this deployment: {shown}"),
        ),
        Meaning::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("{vendor} does not know what was asked for: {shown}; check saas.model and saas.base_url"),
        ),
        Meaning::TooLarge => Error::new(ErrorKind::TooLarge, format!("too long for {vendor}: {shown}")),
        Meaning::Filtered => Error::new(
            ErrorKind::InvalidRequest,
            format!("the content filter of {vendor} refused this request: {shown}"),
        ),
        Meaning::Unsupported => Error::new(ErrorKind::Unsupported, format!("{vendor}: {shown}")),
        Meaning::Invalid => {
            Error::new(ErrorKind::InvalidRequest, format!("{vendor} refused the request: {shown}"))
        }
        Meaning::RateLimited => {
            Error::new(ErrorKind::RateLimited, format!("{vendor} limits the rate: {shown}"))
        }
        Meaning::Overloaded => Error::new(ErrorKind::Overloaded, format!("{vendor} is overloaded: {shown}")),
        Meaning::Failed => Error::new(ErrorKind::Upstream, format!("{vendor} failed: {shown}")),
    };
    match (&said.param, meaning) {
        (Some(param), Meaning::Invalid | Meaning::Unsupported | Meaning::TooLarge) => {
            error.with_param(param.chars().take(128).collect::<String>())
        }
        _ => error,
    }
}

fn meaning(codes: &[(&str, Meaning)], status: u16, said: &Said) -> Meaning {
    let matches = |pattern: &str, code: &str| match pattern.strip_suffix('*') {
        Some(begin) => code.starts_with(begin),
        None => code == pattern,
    };
    let listed = |list: &[(&str, Meaning)]| {
        said.codes.iter().find_map(|code| {
            list.iter().find(|(pattern, _)| matches(pattern, code)).map(|(_, meaning)| *meaning)
        })
    };
    match listed(codes).or_else(|| listed(WORDS)) {
        // OpenAI says `server_error` of an overload, too.
        Some(Meaning::Failed) if matches!(status, 503 | 529) => return Meaning::Overloaded,
        Some(meaning) => return meaning,
        None => {}
    }
    let message = said.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // Without a status a number among the codes is one, as vLLM writes it into streams.
    let inner =
        said.codes.iter().find_map(|code| code.parse::<u16>().ok().filter(|code| (400..600).contains(code)));
    match if status == 0 { inner.unwrap_or(0) } else { status } {
        401 => Meaning::Credential,
        402 => Meaning::Balance,
        403 | 429
            if says(&[
                "insufficient balance",
                "balance is insufficient",
                "insufficient account balance",
                "insufficient quota",
            ]) =>
        {
            Meaning::Balance
        }
        403 => Meaning::Permission,
        404 => Meaning::NotFound,
        413 => Meaning::TooLarge,
        400 | 422
            if says(&[
                "maximum context length",
                "context length",
                "context window",
                "model token limit",
                "too many tokens",
            ]) =>
        {
            Meaning::TooLarge
        }
        429 if says(&["overloaded"]) => Meaning::Overloaded,
        429 => Meaning::RateLimited,
        408 | 409 | 425 => Meaning::Failed,
        400..500 => Meaning::Invalid,
        503 | 529 => Meaning::Overloaded,
        _ => Meaning::Failed,
    }
}

/// When to try again, as the header says: `retry-after-ms`, `retry-after` in seconds, or the reset of the limit that is
/// used up (`x-ratelimit-*`).
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let field = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let used_up = || {
        ["requests", "tokens"]
            .iter()
            .filter(|kind| field(&format!("x-ratelimit-remaining-{kind}")) == Some("0"))
            .filter_map(|kind| span(field(&format!("x-ratelimit-reset-{kind}"))?))
            .max()
    };
    retry_after_span(headers).or_else(used_up)
}

/// A span as Go writes it: `1s`, `6m0s`, `20ms`.
fn span(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        total += number
            * match &after[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &after[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}
