//! The later API: OpenAI's dialect, but errors come in `base_resp`, and a stream's last frame repeats the whole answer.

use std::sync::Arc;

use byzerllm_core::{ChatRequest, Error, GenerationDefaults, Result};
use http::HeaderMap;
use serde_json::Value;
use url::Url;

use super::{NAME, error_in, trace};
use crate::dialects::openai::{Credential, OpenAi, Quirks, Takes, retry_after};
use crate::dialects::shared;
use crate::{Decode, Delta, Dialect, Features, Frame, Outbound, Parameters, Signing};

const QUIRKS: Quirks = Quirks {
    vendor: NAME,
    takes: Takes::OPENAI
        .and(Takes::TOP_K)
        .without(Takes::SEED)
        .without(Takes::STOP)
        .without(Takes::PRESENCE_PENALTY)
        .without(Takes::FREQUENCY_PENALTY)
        .without(Takes::LOGIT_BIAS)
        .without(Takes::LOGPROBS)
        .without(Takes::N)
        .without(Takes::CHOICE_REQUIRED)
        .without(Takes::STRICT_TOOLS)
        .without(Takes::ONE_CALL)
        .without(Takes::JSON_OBJECT),
    embeddings: None,
    features: Features { embeddings: false, ..Quirks::OPENAI.features },
    max_tokens: "max_tokens",
    temperature: (0.0, 1.0),
    extra: &["mask_sensitive_info", "reasoning_split"],
    ..Quirks::OPENAI
};

/// A deployment of the later API.
struct Second {
    inner: OpenAi,
    url: Url,
}

/// Opens one.
pub(super) fn open(parameters: &Parameters, url: &Url, path: &'static str) -> Result<Arc<dyn Dialect>> {
    let quirks = Quirks { chat_path: path, ..QUIRKS };
    let key = shared::secret(parameters, "minimax", "api_key")?;
    let inner =
        OpenAi::open(quirks, parameters, url.as_str())?.with_credential(Credential::bearer(Some(&key))?);
    Ok(Arc::new(Second { inner, url: super::without_query(url) }))
}

impl Dialect for Second {
    fn features(&self) -> Features {
        self.inner.features()
    }

    fn model(&self) -> &str {
        self.inner.model()
    }

    fn base_url(&self) -> Option<&Url> {
        Some(&self.url)
    }

    fn defaults(&self) -> GenerationDefaults {
        self.inner.defaults()
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        self.inner.extra_parameters()
    }

    fn chat(&self, request: &ChatRequest, signing: &Signing<'_>) -> Result<Outbound> {
        self.inner.chat(request, signing)
    }

    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode> {
        Box::new(Reader { inner: self.inner.decoder(request), in_pieces: false })
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = error_in(status, &value, trace(headers), retry_after(headers));
        error.unwrap_or_else(|| self.inner.error(status, headers, body))
    }
}

struct Reader {
    inner: Box<dyn Decode>,
    /// Whether pieces of the answer came.
    in_pieces: bool,
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if frame.data.trim() == "[DONE]" {
            return self.inner.frame(frame, out);
        }
        let mut value = shared::json(NAME, frame.data)?;
        if let Some(error) = error_in(0, &value, None, None) {
            return Err(error);
        }
        let mut repeats = false;
        for choice in value.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten() {
            self.in_pieces |= choice.get("delta").is_some();
            if self.in_pieces
                && let Some(choice) = choice.as_object_mut()
            {
                repeats |= choice.remove("message").is_some();
            }
        }
        if repeats {
            return self.inner.frame(Frame { data: &value.to_string(), ..frame }, out);
        }
        self.inner.frame(frame, out)
    }
}
