//! What a vendor's translation is made of. Nothing here opens a socket, reads a clock or writes a log.

use std::time::SystemTime;

use bytes::Bytes;
use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, FinishReason, GenerationDefaults, Input,
    Part, Result, Signature, TokenLogprob, ToolCallDelta, Usage,
};
use http::{HeaderMap, Method};
use url::Url;

use crate::Secret;

/// What a vendor can do. Each word is a column of `docs/vendors.md` and of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Text generation.
    pub chat: bool,
    /// An answer piece by piece.
    pub stream: bool,
    /// Tool calls.
    pub tools: bool,
    /// Reasoning text, told apart from the answer.
    pub reasoning: bool,
    /// The tokens spent, reported by the vendor.
    pub usage: bool,
    /// Vectors for texts.
    pub embeddings: bool,
    /// Pictures in messages.
    pub images: bool,
}

/// No vendor counts a picture for more tokens than this (OpenAI: gpt-4o-mini, a large picture in high detail, 48,169).
pub(crate) const IMAGE_TOKENS: u64 = 50_000;

/// The pictures of a request.
pub(crate) fn images(request: &ChatRequest) -> u64 {
    let Input::Messages(messages) = &request.input else { return 0 };
    let parts = messages.iter().flat_map(|message| &message.parts);
    parts.filter(|part| matches!(part, Part::Image { .. })).count() as u64
}

/// How an answer is cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One frame: the whole body.
    Whole,
    /// A frame per server-sent event.
    Sse,
    /// A frame per text message of a WebSocket; [`Outbound::body`] is the first message sent.
    WebSocket,
}

/// A message to a vendor.
#[derive(Clone)]
pub struct Outbound {
    /// `POST`, for nearly all.
    pub method: Method,
    /// Where to. It may carry a signature: [`crate::ProviderModel`] never logs its query.
    pub url: Url,
    /// Header fields, the credential's among them (marked sensitive).
    pub headers: HeaderMap,
    /// JSON.
    pub body: Bytes,
    /// How the answer comes.
    pub framing: Framing,
}

/// One frame of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The `event` field of a server-sent event; empty when there is none.
    pub event: &'a str,
    /// The `id` field of a server-sent event; empty when there is none. Vendors that number their events do it here.
    pub id: &'a str,
    /// The data: JSON, nearly always.
    pub data: &'a str,
}

/// A piece of an answer, in the vendor's order. [`crate::ProviderModel`] turns the pieces into events and upholds the
/// contract of the stream: `Finished` after the last piece of a choice, usage last.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// The vendor's id of the request. Repeating it does no harm.
    RequestId(String),
    /// Text of a choice. Empty text does no harm.
    Text(u32, String),
    /// The log probabilities of the tokens of the [`Delta::Text`] before it.
    Logprobs(u32, Vec<TokenLogprob>),
    /// Reasoning text of a choice.
    Reasoning(u32, String),
    /// A piece of a tool call of a choice.
    ToolCall(u32, ToolCallDelta),
    /// What the vendor wants to see again with the conversation; of a tool call before its first piece. An empty one does
    /// no harm.
    Signature(u32, Signature),
    /// The stop string that ends a choice; comes before its [`Delta::Finished`].
    Stop(u32, String),
    /// A choice is over. Text of it may not follow; its usage may. Repeating it does no harm. `Stop` of a choice that
    /// called tools is read as `ToolCalls`.
    Finished(u32, FinishReason),
    /// The tokens spent so far, cumulative: a later one replaces an earlier one. Its source is set to reported. One that
    /// is older than the last piece of text, or that counts nothing although there was something, is not believed.
    Usage(Usage),
    /// The vendor's mark of the end of the whole answer. Without one an answer is complete when all choices are
    /// finished and the body ended.
    End,
}

/// Reads one answer.
pub trait Decode: Send {
    /// Reads a frame and appends what it says, in the order in which it was said. An error that the vendor sends inside
    /// the stream is an `Err`; what was appended before still counts. A server that answers with one JSON body although
    /// events were asked for (an error with status 200, or a whole answer) has it read here as one frame; where that
    /// appends nothing, [`Dialect::error`] says what it means.
    ///
    /// # Errors
    /// The vendor's own error, mapped; [`ErrorKind::Upstream`] for a frame that is not what the vendor documents.
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()>;
}

/// What a dialect needs to sign a message, beside its parameters.
#[derive(Debug, Clone)]
pub struct Signing<'a> {
    /// The time, for signatures and expiry.
    pub now: SystemTime,
    /// The token that [`Dialect::token`] asked for.
    pub token: Option<&'a Secret>,
}

/// A token that must be fetched before messages can be sent. It is kept until shortly before it expires, shared by all
/// requests of the deployment, and fetched anew when the vendor calls it wrong ([`ErrorKind::Unauthenticated`]).
pub struct TokenRequest {
    /// The message that asks for it.
    pub outbound: Outbound,
    /// Reads the answer: the token and how many seconds it lives.
    pub read: fn(&[u8]) -> Result<(Secret, u64)>,
}

/// The translation between our words and a vendor's. One per deployment: it holds the parameters.
pub trait Dialect: Send + Sync {
    /// What this deployment's model can do.
    fn features(&self) -> Features;

    /// The model's name at the vendor, which prices go by.
    fn model(&self) -> &str;

    /// Where the API is, for people. Its query is not shown.
    fn base_url(&self) -> Option<&Url> {
        None
    }

    /// What the vendor does where a request says nothing, as far as the front end's defaults would be refused.
    fn defaults(&self) -> GenerationDefaults {
        GenerationDefaults::default()
    }

    /// The names that [`ChatRequest::extra`] and [`EmbeddingRequest::extra`] may hold. Others are refused before a
    /// request reaches the dialect.
    fn extra_parameters(&self) -> &'static [&'static str] {
        &[]
    }

    /// As [`byzerllm_core::ChatModel::continuation`].
    fn continuation(&self) -> Option<&'static str> {
        None
    }

    /// The token to fetch first, if any.
    fn token(&self) -> Option<TokenRequest> {
        None
    }

    /// Writes a chat request. A parameter that the vendor does not know is refused by name, which
    /// [`crate::refusal::unspoken`] does. Called anew for every attempt. What [`Dialect::features`] denies (tools,
    /// images) never comes here, and `max_tokens` is filled from `saas.max_output_tokens` where the request has none.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with the parameter's name, [`ErrorKind::InvalidRequest`] for a value that the vendor
    /// would refuse.
    fn chat(&self, request: &ChatRequest, signing: &Signing<'_>) -> Result<Outbound>;

    /// How many more tokens than the message has bytes a vendor can count for the prompt: pictures, which are counted by
    /// their size, and what the vendor itself adds (pages that it searched).
    fn prompt_beyond(&self, request: &ChatRequest) -> u64 {
        images(request) * IMAGE_TOKENS
    }

    /// No bill for the request can hold more generated tokens than this; `None` when nothing bounds them. Vendors whose
    /// `max_tokens` leaves out some that they bill say so here.
    fn completion_bound(&self, request: &ChatRequest) -> Option<u64> {
        request.sampling.max_tokens.map(|most| u64::from(most) * u64::from(request.n))
    }

    /// A reader for the answer to a chat request.
    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode>;

    /// Writes a request for vectors.
    ///
    /// # Errors
    /// As [`Dialect::chat`].
    fn embed(&self, request: &EmbeddingRequest, signing: &Signing<'_>) -> Result<Outbound> {
        let _ = (request, signing);
        Err(Error::new(ErrorKind::Unsupported, format!("'{}' makes no embeddings", self.model())))
    }

    /// The most inputs of one request for vectors; more are sent in several.
    fn embedding_batch(&self) -> usize {
        usize::MAX
    }

    /// Reads the answer to a request for vectors, in the order of the inputs.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`] for a body that is not what the vendor documents.
    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        let _ = body;
        Err(Error::internal("a dialect without embeddings was asked to read some; please report this"))
    }

    /// Maps an error body to our kinds: the vendor's message, its request id, and when to try again. Credentials are
    /// taken out of the message, and a `Retry-After` field is read, by [`crate::ProviderModel`].
    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error;
}
