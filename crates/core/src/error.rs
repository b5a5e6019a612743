//! One error type with a closed kind. A single table gives each kind its HTTP status, its code and its retry rule.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::Usage;

/// The result of every fallible operation that crosses a crate border.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a closed set. Callers branch on the kind, never on the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is malformed or out of range; the same request will never succeed.
    InvalidRequest,
    /// A credential is missing or wrong.
    Unauthenticated,
    /// The credential is valid but does not allow this.
    PermissionDenied,
    /// The named thing does not exist.
    NotFound,
    /// The thing exists already, or another process holds it.
    Conflict,
    /// The input exceeds a limit, for example the model's context length.
    TooLarge,
    /// The request is well formed but this build, model or vendor cannot do it.
    Unsupported,
    /// The caller has exceeded its rate.
    RateLimited,
    /// The server is full; try again later.
    Overloaded,
    /// The caller cancelled the request.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
    /// A remote model or vendor failed.
    Upstream,
    /// The model is loading, draining or failed.
    Unavailable,
    /// A bug in byzerllm.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: [ErrorKind; 14] = [
        ErrorKind::InvalidRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::PermissionDenied,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::TooLarge,
        ErrorKind::Unsupported,
        ErrorKind::RateLimited,
        ErrorKind::Overloaded,
        ErrorKind::Cancelled,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Upstream,
        ErrorKind::Unavailable,
        ErrorKind::Internal,
    ];

    /// The HTTP status that the gateway answers with.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        self.row().0
    }

    /// The stable machine-readable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().1
    }

    /// The `type` field of an OpenAI-shaped error body.
    #[must_use]
    pub const fn openai_type(self) -> &'static str {
        self.row().2
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        self.row().3
    }

    /// The one table: status, code, OpenAI type, retryable.
    const fn row(self) -> (u16, &'static str, &'static str, bool) {
        match self {
            Self::InvalidRequest => (400, "invalid_request", "invalid_request_error", false),
            Self::Unauthenticated => (401, "unauthenticated", "authentication_error", false),
            Self::PermissionDenied => (403, "permission_denied", "permission_error", false),
            Self::NotFound => (404, "not_found", "not_found_error", false),
            Self::Conflict => (409, "conflict", "invalid_request_error", false),
            Self::TooLarge => (400, "context_length_exceeded", "invalid_request_error", false),
            Self::Unsupported => (400, "unsupported", "invalid_request_error", false),
            Self::RateLimited => (429, "rate_limited", "rate_limit_error", true),
            Self::Overloaded => (429, "overloaded", "rate_limit_error", true),
            Self::Cancelled => (499, "cancelled", "cancelled", false),
            Self::DeadlineExceeded => (504, "deadline_exceeded", "timeout_error", true),
            Self::Upstream => (502, "upstream", "upstream_error", true),
            Self::Unavailable => (503, "unavailable", "service_unavailable", true),
            Self::Internal => (500, "internal", "internal_error", false),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error with a client-safe message. The `source` is for logs and never reaches a client.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    usage: Option<Usage>,
    vendor_request_id: Option<String>,
    source: Option<BoxError>,
}

impl Error {
    /// Makes an error. The message says what failed and what to do about it, and is safe to show to a client.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            param: None,
            retry_after: None,
            usage: None,
            vendor_request_id: None,
            source: None,
        }))
    }

    /// An [`ErrorKind::InvalidRequest`] about one parameter.
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message).with_param(param)
    }

    /// An [`ErrorKind::Internal`] error.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Names the request parameter at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Says when a retry may succeed.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Attaches the tokens spent before the failure.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.0.usage = Some(usage);
        self
    }

    /// Names the request as the vendor that failed knows it.
    #[must_use]
    pub fn with_vendor_request_id(mut self, id: impl Into<String>) -> Self {
        self.0.vendor_request_id = Some(id.into());
        self
    }

    /// Attaches the cause, for logs.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The client-safe message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The request parameter at fault, when there is one.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// When a retry may succeed.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The tokens spent before the failure, when known.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.0.usage.as_ref()
    }

    /// The vendor's id of the request that failed, when it gave one.
    #[must_use]
    pub fn vendor_request_id(&self) -> Option<&str> {
        self.0.vendor_request_id.as_deref()
    }

    /// A copy without the source, for an error that several waiters share.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            param: self.0.param.clone(),
            retry_after: self.0.retry_after,
            usage: self.0.usage.clone(),
            vendor_request_id: self.0.vendor_request_id.clone(),
            source: None,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(param) = &self.0.param {
            out.field("param", param);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The form in which an error travels between processes: everything but the source.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Wire {
    kind: ErrorKind,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vendor_request_id: Option<String>,
}

impl Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            kind: self.0.kind,
            message: self.0.message.to_string(),
            param: self.0.param.as_ref().map(ToString::to_string),
            retry_after_ms: self
                .0
                .retry_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            usage: self.0.usage.clone(),
            vendor_request_id: self.0.vendor_request_id.clone(),
        }
        .serialize(serializer)
    }
}

impl JsonSchema for Error {
    fn schema_name() -> Cow<'static, str> {
        "Error".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Wire::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self(Box::new(Inner {
            kind: wire.kind,
            message: wire.message.into(),
            param: wire.param.map(Cow::Owned),
            retry_after: wire.retry_after_ms.map(Duration::from_millis),
            usage: wire.usage,
            vendor_request_id: wire.vendor_request_id,
            source: None,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn the_source_never_travels() {
        let error = Error::invalid("n", "n must be at most 8").with_source("secret path");
        let wire = serde_json::to_string(&error).unwrap();
        assert!(!wire.contains("secret"));
        let back: Error = serde_json::from_str(&wire).unwrap();
        assert_eq!((back.kind(), back.message(), back.param()), (error.kind(), error.message(), Some("n")));
    }
}
