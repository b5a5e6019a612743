//! OpenAI's chat completions and embeddings, which most vendors speak with small differences.
//!
//! A vendor is a [`Quirks`] value: what it takes, under which names, and what its error codes mean. What it does not
//! take is refused by name. [`OpenAi::open`] makes a dialect of it.
//!
//! - Input: messages, or a text, which becomes one message of the user. Token ids are refused: they belong to one
//!   vocabulary, and no vendor says which of its models have which.
//! - Reasoning of earlier turns (`reasoning_content`) goes back only to vendors that read it ([`Quirks::reasoning_back`]).
//! - A refusal (`refusal`) is text of the answer, and its choice finishes with
//!   [`byzerllm_core::FinishReason::ContentFilter`].
//!
//! Source: OpenAI API reference, "Chat" and "Embeddings" (<https://platform.openai.com/docs/api-reference/chat>), and the
//! types of the `openai` Python package 3.54.

mod answer;
mod chunk;
mod credential;
mod embeddings;
mod error;
mod message;
mod quirks;
mod request;

use std::sync::Arc;

use bytes::Bytes;
use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, GenerationDefaults, Result,
};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use crate::dialect::{IMAGE_TOKENS, images};
use crate::{Decode, Dialect, Features, Framing, Outbound, Parameters, Signing};

pub use credential::{Credential, Sign};
pub use embeddings::EmbeddingQuirks;
pub use error::{Meaning, Said, describe, retry_after};
pub use message::{Content, WireImage, WireMessage, WirePart};
pub use quirks::{Quirks, Takes};
pub use request::{Body, WireTool};

/// No vendor of this dialect adds more to a prompt than its models of the time take, 128 Ki tokens.
const FOUND_TOKENS: u64 = 131_072;

/// A deployment of a vendor that speaks OpenAI's dialect.
pub struct OpenAi {
    quirks: Quirks,
    model: String,
    base: Url,
    chat: Url,
    embeddings: Option<Url>,
    credential: Credential,
    headers: HeaderMap,
}

impl OpenAi {
    /// A dialect from a vendor's quirks and its parameters `model` and `base_url`, without a credential.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] without a model, or for a URL that is none of HTTP.
    pub fn open(quirks: Quirks, parameters: &Parameters, default_base: &str) -> Result<Self> {
        let model = parameters.optional_text("model").ok_or_else(|| {
            Error::invalid(
                "saas.model",
                format!("{} needs saas.model: the model's name at the vendor", quirks.vendor),
            )
        })?;
        match parameters.url("base_url") {
            Some(base) => Self::at(quirks, model, base),
            None => Self::at(quirks, model, &parse(default_base)?),
        }
    }

    /// A dialect from a vendor's quirks, the model's name and the base URL, without a credential. A model whose
    /// name says that it makes vectors (`embedding`, `bge-`, `bce-`) does nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for a URL that is none of HTTP.
    pub fn at(mut quirks: Quirks, model: &str, base: &Url) -> Result<Self> {
        if !matches!(base.scheme(), "http" | "https") {
            return Err(Error::invalid("saas.base_url", "saas.base_url must begin with http:// or https://"));
        }
        let name = model.to_lowercase();
        if ["embedding", "bge-", "bce-"].iter().any(|word| name.contains(word)) {
            quirks.features =
                Features { usage: true, embeddings: quirks.features.embeddings, ..Features::default() };
        }
        let chat = endpoint(base, quirks.chat_path);
        let embeddings = quirks.embeddings.map(|quirks| endpoint(base, quirks.path));
        Ok(Self {
            quirks,
            model: model.to_owned(),
            base: base.clone(),
            chat,
            embeddings,
            credential: Credential::None,
            headers: HeaderMap::new(),
        })
    }

    /// The same with a credential.
    #[must_use]
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// The same with a header field on every message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] naming the parameter, for a value that cannot stand in a header.
    pub fn with_header(mut self, name: &'static str, value: &str, parameter: &'static str) -> Result<Self> {
        let value = HeaderValue::from_str(value).map_err(|_| {
            Error::invalid(parameter, format!("{parameter} holds characters that cannot stand in a header"))
        })?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// The same with a query parameter on every message.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        for url in std::iter::once(&mut self.chat).chain(self.embeddings.as_mut()) {
            url.query_pairs_mut().append_pair(name, value);
        }
        self
    }

    /// As the table of vendors wants it.
    #[must_use]
    pub fn boxed(self) -> Arc<dyn Dialect> {
        Arc::new(self)
    }

    fn outbound(
        &self,
        url: &Url,
        body: Vec<u8>,
        framing: Framing,
        signing: &Signing<'_>,
    ) -> Result<Outbound> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = if framing == Framing::Sse { "text/event-stream" } else { "application/json" };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        self.credential.write(&mut headers, signing)?;
        Ok(Outbound { method: Method::POST, url: url.clone(), headers, body: Bytes::from(body), framing })
    }
}

impl Dialect for OpenAi {
    fn features(&self) -> Features {
        self.quirks.features
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn base_url(&self) -> Option<&Url> {
        Some(&self.base)
    }

    fn defaults(&self) -> GenerationDefaults {
        self.quirks.defaults.clone()
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        self.quirks.extra
    }

    fn continuation(&self) -> Option<&'static str> {
        self.quirks.message_extra.iter().copied().find(|field| matches!(*field, "partial" | "prefix"))
    }

    fn chat(&self, request: &ChatRequest, signing: &Signing<'_>) -> Result<Outbound> {
        let body = request::encode(&self.quirks, &self.model, request)?;
        let framing = if request.whole { Framing::Whole } else { Framing::Sse };
        self.outbound(&self.chat, body, framing, signing)
    }

    fn prompt_beyond(&self, request: &ChatRequest) -> u64 {
        let adds = self.quirks.extra_prompts.iter().any(|name| request.extra.contains_key(*name));
        images(request) * IMAGE_TOKENS + if adds { FOUND_TOKENS } else { 0 }
    }

    fn completion_bound(&self, request: &ChatRequest) -> Option<u64> {
        let most = u64::from(request.sampling.max_tokens?) + u64::from(self.quirks.reasoning_beyond);
        Some(most * u64::from(request.n))
    }

    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode> {
        Box::new(answer::Decoder::new(&self.quirks, request))
    }

    fn embed(&self, request: &EmbeddingRequest, signing: &Signing<'_>) -> Result<Outbound> {
        let (Some(url), Some(quirks)) = (&self.embeddings, &self.quirks.embeddings) else {
            let message = format!("{} offers no embeddings", self.quirks.vendor);
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let body = embeddings::encode(self.quirks.vendor, quirks, &self.model, request)?;
        self.outbound(url, body, Framing::Whole, signing)
    }

    fn embedding_batch(&self) -> usize {
        self.quirks.embeddings.map_or(usize::MAX, |quirks| quirks.batch)
    }

    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        embeddings::decode(&self.quirks, body)
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        error::answer(self.quirks.vendor, self.quirks.codes, status, headers, body)
    }
}

/// A vendor's own address.
fn parse(base: &str) -> Result<Url> {
    Url::parse(base).map_err(|error| Error::internal("a vendor's own address is no URL").with_source(error))
}

/// The URL of an endpoint below a base. A base that already ends with the endpoint is taken as it is, and its query
/// stays.
fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_fragment(None);
    let before = base.path().trim_end_matches('/');
    if before.ends_with(&format!("/{path}")) {
        url.set_path(before);
        return url;
    }
    // A base that names the other endpoint in full: what it is below of is the base.
    let before = ["/chat/completions", "/embeddings"]
        .iter()
        .find_map(|end| before.strip_suffix(end))
        .unwrap_or(before);
    url.set_path(&format!("{before}/{path}"));
    url
}
