//! The error body that OpenAI clients understand.

use byzerllm_core::Error;
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
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn new(error: &'a Error, code: &'a str, with_detail: bool) -> Self {
        let body = OpenAiError {
            message: error.message(),
            r#type: error.kind().openai_type(),
            param: error.param(),
            code,
        };
        Self { error: body, detail: with_detail.then_some(error) }
    }

    /// The body inside a stream.
    pub(crate) fn in_stream(error: &'a Error) -> Self {
        Self::new(error, error.kind().code(), false)
    }
}
