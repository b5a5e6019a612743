//! The error bodies that clients of OpenAI's API and of Anthropic's understand.

use byzerllm_core::{Error, ErrorKind, RequestId};
use schemars::JsonSchema;
use serde::Serialize;

/// Why a request failed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorAnswer")]
pub(crate) struct ErrorBody<'a> {
    error: OpenAiError<'a>,
    /// The error as our own clients read it, on our own routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a Error>,
}

/// The error as clients of OpenAI's API read it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorObject")]
struct OpenAiError<'a> {
    /// What failed and what to do about it.
    message: &'a str,
    r#type: &'static str,
    /// The field at fault, with its path.
    param: Option<&'a str>,
    /// A stable word.
    code: &'a str,
    /// The id that the vendor gave the request, when one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor_request_id: Option<&'a str>,
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn new(error: &'a Error, code: &'a str, with_detail: bool) -> Self {
        let body = OpenAiError {
            message: error.message(),
            r#type: error.kind().openai_type(),
            param: error.param(),
            code,
            vendor_request_id: error.vendor_request_id(),
        };
        Self { error: body, detail: with_detail.then_some(error) }
    }

    /// The body inside a stream.
    pub(crate) fn in_stream(error: &'a Error) -> Self {
        Self::new(error, error.kind().code(), false)
    }
}

/// Why a request failed, as clients of Anthropic's API read it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MessagesErrorAnswer")]
pub(crate) struct AnthropicErrorBody<'a> {
    r#type: &'static str,
    error: AnthropicError<'a>,
    /// The id of the request in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// The error itself.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MessagesError")]
struct AnthropicError<'a> {
    #[schemars(transform = super::describe::words(ANTHROPIC_TYPES))]
    r#type: &'static str,
    /// What failed and what to do about it.
    message: &'a str,
    /// The field at fault, with its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    /// A stable word.
    code: &'a str,
    /// The id that the vendor gave the request, when one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor_request_id: Option<&'a str>,
}

/// Anthropic's words for what went wrong.
const ANTHROPIC_TYPES: &[&str] = &[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "overloaded_error",
    "api_error",
];

impl<'a> AnthropicErrorBody<'a> {
    /// The body; `code` is the kind's own when absent.
    pub(crate) fn new(error: &'a Error, code: Option<&'a str>, id: Option<&'a RequestId>) -> Self {
        let r#type = match error.kind() {
            _ if code == Some("request_too_large") => "request_too_large",
            ErrorKind::InvalidRequest
            | ErrorKind::Conflict
            | ErrorKind::TooLarge
            | ErrorKind::Unsupported
            | ErrorKind::Cancelled => "invalid_request_error",
            ErrorKind::Unauthenticated => "authentication_error",
            ErrorKind::PermissionDenied => "permission_error",
            ErrorKind::NotFound => "not_found_error",
            ErrorKind::RateLimited => "rate_limit_error",
            ErrorKind::DeadlineExceeded => "timeout_error",
            ErrorKind::Overloaded | ErrorKind::Unavailable => "overloaded_error",
            ErrorKind::Upstream | ErrorKind::Internal => "api_error",
        };
        let body = AnthropicError {
            r#type,
            message: error.message(),
            param: error.param(),
            code: code.unwrap_or(error.kind().code()),
            vendor_request_id: error.vendor_request_id(),
        };
        Self { r#type: "error", error: body, request_id: id.map(|id| id.0.as_str()) }
    }
}
