//! `saas/claude`: Anthropic's Messages API.
//!
//! Source: Anthropic API reference, "Messages", "Streaming messages", "Errors"; `anthropic` 2.12.0, `types/`.

mod decode;
mod encode;

use std::sync::Arc;

use byzerllm_core::{ChatRequest, Error, GenerationDefaults, Result};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use url::Url;

use crate::dialects::openai::{Meaning, retry_after};
use crate::dialects::shared::{self, Refusal, text_at};
use crate::refusal::header;
use crate::{
    Decode, Dialect, Features, Framing, Kind, Outbound, Parameter, Parameters, Secret, Signing, Vendor,
};

/// The vendor's name for people.
const NAME: &str = "Anthropic";
/// New tokens of a request when neither it nor the deployment says how many: the API wants a number.
const MAX_TOKENS: u32 = 4096;

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "claude",
    aliases: &["anthropic"],
    title: "Anthropic Claude",
    documentation: "https://docs.claude.com/en/api/messages",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new("model", Kind::Text, "The model").or("claude-3-haiku-20240307"),
        Parameter::new("anthropic_version", Kind::Text, "The version of the API").or("2023-06-01"),
        Parameter::new("anthropic_beta", Kind::Text, "Names of beta features, with commas between them"),
    ],
    open: |parameters| Ok(Arc::new(Claude::open(parameters)?) as Arc<dyn Dialect>),
};

struct Claude {
    key: Secret,
    model: String,
    version: HeaderValue,
    beta: Option<HeaderValue>,
    url: Url,
}

impl Claude {
    fn open(parameters: &Parameters) -> Result<Self> {
        let word = |name: &'static str| {
            let value = parameters.optional_text(name).map(HeaderValue::from_str).transpose();
            value.map_err(|_| {
                Error::invalid(format!("saas.{name}"), format!("saas.{name} is no header's text"))
            })
        };
        Ok(Self {
            key: shared::secret(parameters, "claude", "api_key")?,
            model: parameters.text("model").to_owned(),
            version: word("anthropic_version")?.unwrap_or(HeaderValue::from_static("2023-06-01")),
            beta: word("anthropic_beta")?,
            url: shared::endpoint(parameters, "https://api.anthropic.com", "/v1", "/messages")?,
        })
    }
}

impl Dialect for Claude {
    fn features(&self) -> Features {
        Features {
            chat: true,
            stream: true,
            tools: true,
            reasoning: true,
            usage: true,
            embeddings: false,
            images: true,
        }
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn base_url(&self) -> Option<&Url> {
        Some(&self.url)
    }

    /// Newer models take a temperature or `top_p`, not both, and those that think neither.
    fn defaults(&self) -> GenerationDefaults {
        GenerationDefaults { temperature: Some(1.0), top_p: Some(1.0), ..GenerationDefaults::default() }
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        encode::EXTRA
    }

    fn continuation(&self) -> Option<&'static str> {
        Some("")
    }

    fn chat(&self, request: &ChatRequest, _: &Signing<'_>) -> Result<Outbound> {
        let body = encode::body(&self.model, MAX_TOKENS, request)?;
        let mut headers =
            shared::credential(HeaderName::from_static("x-api-key"), "", &self.key, "saas.api_key")?;
        headers.insert(HeaderName::from_static("anthropic-version"), self.version.clone());
        if let Some(beta) = &self.beta {
            headers.insert(HeaderName::from_static("anthropic-beta"), beta.clone());
        }
        let framing = if request.whole { Framing::Whole } else { Framing::Sse };
        Ok(shared::post(self.url.clone(), headers, &body, framing))
    }

    fn decoder(&self, _: &ChatRequest) -> Box<dyn Decode> {
        Box::new(decode::Reader::default())
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        error(status, &value, header(headers, &["request-id"]), retry_after(headers))
    }
}

/// Maps `{"type": "error", "error": {"type", "message"}, "request_id"}`, of a body or of a stream's event.
fn error(status: u16, value: &Value, id: Option<&str>, retry_after: Option<std::time::Duration>) -> Error {
    let message = text_at(value, "/error/message");
    let meaning = match text_at(value, "/error/type") {
        "authentication_error" => Some(Meaning::Credential),
        "permission_error" => Some(Meaning::Permission),
        "billing_error" => Some(Meaning::Balance),
        "not_found_error" => Some(Meaning::NotFound),
        "request_too_large" => Some(Meaning::TooLarge),
        "rate_limit_error" => Some(Meaning::RateLimited),
        "overloaded_error" => Some(Meaning::Overloaded),
        "api_error" | "timeout_error" => Some(Meaning::Failed),
        // What is wrong with an account is told as what is wrong with a request.
        "invalid_request_error" if message.contains("credit balance") => Some(Meaning::Balance),
        "invalid_request_error" if shared::is_too_long(message) => Some(Meaning::TooLarge),
        "invalid_request_error" => Some(Meaning::Invalid),
        _ => None,
    };
    let request_id = id.or_else(|| value.get("request_id").and_then(Value::as_str));
    Refusal { vendor: NAME, status, meaning, message, credentials: "saas.api_key", request_id, retry_after }
        .error()
}
