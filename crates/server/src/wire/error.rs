//! The error body that OpenAI clients understand.

use byzerllm_core::Error;
use serde::Serialize;

/// The whole body.
#[derive(Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: OpenAiError<'a>,
    /// The error as our own clients read it, on our own routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a Error>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
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
