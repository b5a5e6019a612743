//! `saas/gemini`: Google's Gemini API.
//!
//! Source: Gemini API reference, "Generating content", "Embeddings", "Troubleshooting"; `google-genai` 3.4.0, `types.py`
//! and `models.py`.

mod decode;
mod encode;

use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, Result, Usage, UsageSource,
};
use http::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use url::Url;

use crate::dialects::openai::{Meaning, retry_after};
use crate::dialects::shared::{self, Refusal, count_at, text_at};
use crate::refusal::header;
use crate::{
    Decode, Dialect, Features, Framing, Kind, Outbound, Parameter, Parameters, Secret, Signing, Vendor,
};

/// The vendor's name for people.
const NAME: &str = "Gemini";
/// Beginning of the ids that calls get from us where the API gave none.
const OWN_ID: &str = "gemini-";

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "gemini",
    aliases: &["google"],
    title: "Google Gemini",
    documentation: "https://ai.google.dev/api/generate-content",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new("model", Kind::Text, "The model, for chat or for embeddings").or("gemini-2.5-flash"),
    ],
    open: |parameters| Ok(Arc::new(Gemini::open(parameters)?) as Arc<dyn Dialect>),
};

struct Gemini {
    key: Secret,
    model: String,
    /// The model's name in paths and bodies: `models/NAME`, unless it says itself what it is.
    resource: String,
    whole: Url,
    stream: Url,
    embed: Url,
}

impl Gemini {
    fn open(parameters: &Parameters) -> Result<Self> {
        let model = parameters.text("model").to_owned();
        let resource = if model.contains('/') { model.clone() } else { format!("models/{model}") };
        let url = |operation: &str| {
            let rest = format!("/{resource}:{operation}");
            shared::endpoint(parameters, "https://generativelanguage.googleapis.com", "/v1beta", &rest)
        };
        Ok(Self {
            key: shared::secret(parameters, "gemini", "api_key")?,
            whole: url("generateContent")?,
            stream: url("streamGenerateContent?alt=sse")?,
            embed: url("batchEmbedContents")?,
            model,
            resource,
        })
    }

    fn embeds(&self) -> bool {
        self.model.contains("embedding")
    }

    fn headers(&self) -> Result<HeaderMap> {
        // In a header and not in the address, where logs of others keep it.
        shared::credential(HeaderName::from_static("x-goog-api-key"), "", &self.key, "saas.api_key")
    }
}

impl Dialect for Gemini {
    fn features(&self) -> Features {
        let chat = !self.embeds();
        Features {
            chat,
            stream: chat,
            tools: chat,
            reasoning: chat,
            usage: chat,
            embeddings: !chat,
            images: chat,
        }
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn base_url(&self) -> Option<&Url> {
        Some(if self.embeds() { &self.embed } else { &self.stream })
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        if self.embeds() { encode::EXTRA_EMBEDDING } else { encode::EXTRA }
    }

    fn chat(&self, request: &ChatRequest, _: &Signing<'_>) -> Result<Outbound> {
        if self.embeds() {
            let message = format!("'{}' makes embeddings and does not chat", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        let body = encode::body(&self.model, request)?;
        let (url, framing) =
            if request.whole { (&self.whole, Framing::Whole) } else { (&self.stream, Framing::Sse) };
        Ok(shared::post(url.clone(), self.headers()?, &body, framing))
    }

    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode> {
        Box::new(decode::Reader::new(request.n))
    }

    fn embed(&self, request: &EmbeddingRequest, _: &Signing<'_>) -> Result<Outbound> {
        if !self.embeds() {
            let message =
                format!("'{}' makes no embeddings; set saas.model to gemini-embedding-001", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        let one = |text: &str| {
            let mut one = json!({"model": self.resource, "content": {"parts": [{"text": text}]}});
            if let Some(dimensions) = request.dimensions {
                one["outputDimensionality"] = json!(dimensions);
            }
            for (name, value) in &request.extra {
                one[name.as_str()] = value.clone();
            }
            one
        };
        let requests: Vec<Value> = shared::texts("gemini", request)?.into_iter().map(one).collect();
        Ok(shared::post(self.embed.clone(), self.headers()?, &json!({"requests": requests}), Framing::Whole))
    }

    fn embedding_batch(&self) -> usize {
        100
    }

    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        let body = shared::json(NAME, &String::from_utf8_lossy(body))?;
        let items = body.get("embeddings").and_then(Value::as_array);
        let vectors = items.into_iter().flatten().map(|item| shared::vector(NAME, item.get("values")));
        let vectors = vectors.collect::<Result<Vec<_>>>()?;
        let usage = match count_at(&body, "/usageMetadata/promptTokenCount") {
            Some(tokens) => shared::reported(tokens, 0),
            None => Usage { source: UsageSource::Unknown, ..Usage::default() },
        };
        Ok(Embeddings { vectors, usage, notices: Vec::new() })
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        error(status, &value, header(headers, &["x-request-id"]), retry_after(headers))
    }
}

/// Maps a `google.rpc.Status` under `error`. Streams that are not events put it into a list.
fn error(status: u16, value: &Value, id: Option<&str>, retry_after: Option<Duration>) -> Error {
    let value = value.get(0).unwrap_or(value);
    let message = text_at(value, "/error/message");
    let details = || value.pointer("/error/details").and_then(Value::as_array).into_iter().flatten();
    let detail = |kind: &str| details().find(|detail| text_at(detail, "/@type").ends_with(kind));
    let reason = detail("google.rpc.ErrorInfo").map(|info| text_at(info, "/reason")).unwrap_or_default();
    let meaning = match text_at(value, "/error/status") {
        _ if reason.starts_with("API_KEY_") || message.starts_with("API key") => Some(Meaning::Credential),
        "INVALID_ARGUMENT" | "OUT_OF_RANGE" if shared::is_too_long(message) => Some(Meaning::TooLarge),
        "INVALID_ARGUMENT" | "OUT_OF_RANGE" => Some(Meaning::Invalid),
        "UNIMPLEMENTED" => Some(Meaning::Unsupported),
        "UNAUTHENTICATED" => Some(Meaning::Credential),
        // Of the account: its billing is off, or its country is not served.
        "FAILED_PRECONDITION" | "PERMISSION_DENIED" => Some(Meaning::Permission),
        "NOT_FOUND" => Some(Meaning::NotFound),
        "RESOURCE_EXHAUSTED" => Some(Meaning::RateLimited),
        "UNAVAILABLE" => Some(Meaning::Overloaded),
        "INTERNAL" | "UNKNOWN" | "DEADLINE_EXCEEDED" | "CANCELLED" | "ABORTED" | "DATA_LOSS" => {
            Some(Meaning::Failed)
        }
        _ => None,
    };
    let delay = detail("google.rpc.RetryInfo").and_then(|info| seconds(text_at(info, "/retryDelay")));
    let request = detail("google.rpc.RequestInfo").map(|info| text_at(info, "/requestId"));
    Refusal {
        vendor: NAME,
        status,
        meaning,
        message,
        credentials: "saas.api_key",
        request_id: request.or(id),
        retry_after: delay.or(retry_after),
    }
    .error()
}

/// A `google.protobuf.Duration` in JSON: `17s`, `0.847s`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}
