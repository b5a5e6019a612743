//! What tells vendors of this dialect apart.

use byzerllm_core::{GenerationDefaults, Result, Sampling};

use super::{Body, EmbeddingQuirks, Meaning};
use crate::Features;

/// A set of things that a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takes(u64);

macro_rules! takes {
    ($($(#[doc = $doc:literal])* $name:ident = $bit:literal;)*) => {
        impl Takes {
            $($(#[doc = $doc])* pub const $name: Self = Self(1 << $bit);)*
        }
    };
}

takes! {
    /// `temperature`.
    TEMPERATURE = 0;
    /// `top_p`.
    TOP_P = 1;
    /// `top_k`.
    TOP_K = 2;
    /// `min_p`.
    MIN_P = 3;
    /// `seed`.
    SEED = 4;
    /// `max_tokens`, under the name that [`Quirks::max_tokens`] says.
    MAX_TOKENS = 5;
    /// `stop`.
    STOP = 6;
    /// `stop_token_ids`.
    STOP_TOKEN_IDS = 7;
    /// `presence_penalty`.
    PRESENCE_PENALTY = 8;
    /// `frequency_penalty`.
    FREQUENCY_PENALTY = 9;
    /// `repetition_penalty`.
    REPETITION_PENALTY = 10;
    /// `logit_bias`.
    LOGIT_BIAS = 11;
    /// `ignore_end`, on the wire `ignore_eos`.
    IGNORE_END = 12;
    /// `min_tokens`.
    MIN_TOKENS = 13;
    /// `logprobs`.
    LOGPROBS = 14;
    /// `n` above 1.
    N = 15;
    /// `tools`.
    TOOLS = 16;
    /// `strict` of a tool.
    STRICT_TOOLS = 17;
    /// `tool_choice` `none`.
    CHOICE_NONE = 18;
    /// `tool_choice` `required`.
    CHOICE_REQUIRED = 19;
    /// `tool_choice` that names a function.
    CHOICE_NAMED = 20;
    /// `parallel_tool_calls` set to false.
    ONE_CALL = 21;
    /// `response_format` of kind `json_object`.
    JSON_OBJECT = 22;
    /// `response_format` of kind `json_schema`.
    JSON_SCHEMA = 23;
    /// Formats by regular expression, grammar or choice, as vLLM writes them (`structured_outputs`).
    STRUCTURED_OUTPUTS = 24;
    /// Pictures in messages.
    IMAGES = 25;
    /// `name` of a message.
    NAMES = 26;
}

impl Takes {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// What OpenAI's own API takes.
    pub const OPENAI: Self = Self::TEMPERATURE
        .and(Self::TOP_P)
        .and(Self::SEED)
        .and(Self::MAX_TOKENS)
        .and(Self::STOP)
        .and(Self::PRESENCE_PENALTY)
        .and(Self::FREQUENCY_PENALTY)
        .and(Self::LOGIT_BIAS)
        .and(Self::LOGPROBS)
        .and(Self::N)
        .and(Self::ALL_TOOLS)
        .and(Self::STRICT_TOOLS)
        .and(Self::ONE_CALL)
        .and(Self::JSON_OBJECT)
        .and(Self::JSON_SCHEMA)
        .and(Self::IMAGES)
        .and(Self::NAMES);
    /// Tools with every `tool_choice`.
    pub const ALL_TOOLS: Self =
        Self::TOOLS.and(Self::CHOICE_NONE).and(Self::CHOICE_REQUIRED).and(Self::CHOICE_NAMED);
    /// What OpenAI's reasoning models do not take.
    pub const NOT_REASONING: Self = Self::TEMPERATURE
        .and(Self::TOP_P)
        .and(Self::PRESENCE_PENALTY)
        .and(Self::FREQUENCY_PENALTY)
        .and(Self::LOGIT_BIAS)
        .and(Self::LOGPROBS);
    /// What vLLM's server takes beyond OpenAI's.
    pub const VLLM: Self = Self::TOP_K
        .and(Self::MIN_P)
        .and(Self::REPETITION_PENALTY)
        .and(Self::STOP_TOKEN_IDS)
        .and(Self::IGNORE_END)
        .and(Self::MIN_TOKENS)
        .and(Self::STRUCTURED_OUTPUTS);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of those are in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How a vendor's API differs from OpenAI's.
#[derive(Clone)]
pub struct Quirks {
    /// The vendor's name in messages to people.
    pub vendor: &'static str,
    /// What its columns of the vendor table say.
    pub features: Features,
    /// What it takes; the rest is refused by name.
    pub takes: Takes,
    /// The path of chat completions below the base URL.
    pub chat_path: &'static str,
    /// Embeddings, where it has them.
    pub embeddings: Option<EmbeddingQuirks>,
    /// The name of the bound of new tokens: `max_tokens` or `max_completion_tokens`.
    pub max_tokens: &'static str,
    /// Tokens of reasoning that the bound of new tokens leaves out and the vendor bills, at most.
    pub reasoning_beyond: u32,
    /// The most stop strings.
    pub max_stop: usize,
    /// The lowest and the highest temperature.
    pub temperature: (f32, f32),
    /// The highest `top_p`, and whether it is excluded.
    pub top_p: (f32, bool),
    /// Whether a stream reports its usage only when `stream_options.include_usage` asks for it.
    pub stream_options: bool,
    /// The names of [`byzerllm_core::ChatRequest::extra`], which go into the body as they are, but for `extra_tools`.
    pub extra: &'static [&'static str],
    /// Those of `extra` that let the vendor add to the prompt (search, knowledge bases), which it bills.
    pub extra_prompts: &'static [&'static str],
    /// Those of `extra` that are tools of the vendor: `{"type": NAME, NAME: value}` joins the tools.
    pub extra_tools: &'static [&'static str],
    /// Further fields of a message (`prefix`, `partial`), handed on as they are.
    pub message_extra: &'static [&'static str],
    /// Whether reasoning of earlier turns goes back with its messages, as `reasoning_content`.
    pub reasoning_back: bool,
    /// Whether a picture's bytes are sent as base64 alone, without `data:` and its type.
    pub bare_images: bool,
    /// Whether a schema is sent with `strict: true`, so that OpenAI enforces it while decoding. OpenAI then refuses
    /// schemas outside its subset.
    pub strict_schemas: bool,
    /// What replaces the front end's defaults.
    pub defaults: GenerationDefaults,
    /// The vendor's own error codes. A code that ends with `*` stands for all that begin so.
    pub codes: &'static [(&'static str, Meaning)],
    /// The last word of the vendor on a body.
    pub adjust: Option<fn(&mut Body<'_>) -> Result<()>>,
}

impl Quirks {
    /// OpenAI itself; vendors change what differs.
    pub const OPENAI: Self = Self {
        vendor: "OpenAI",
        features: Features {
            chat: true,
            stream: true,
            tools: true,
            reasoning: true,
            usage: true,
            embeddings: true,
            images: true,
        },
        takes: Takes::OPENAI,
        chat_path: "chat/completions",
        embeddings: Some(EmbeddingQuirks::OPENAI),
        max_tokens: "max_tokens",
        reasoning_beyond: 0,
        max_stop: 4,
        temperature: (0.0, 2.0),
        top_p: (1.0, false),
        stream_options: true,
        extra: &[
            "metadata",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_retention",
            "reasoning_effort",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
            "verbosity",
            "web_search_options",
        ],
        extra_prompts: &[
            "data_sources",
            "knowledge_base",
            "retrieval",
            "web_search",
            "web_search_options",
            "with_search_enhance",
        ],
        extra_tools: &[],
        message_extra: &[],
        reasoning_back: false,
        bare_images: false,
        strict_schemas: true,
        defaults: Sampling::UNSET,
        codes: &[],
        adjust: None,
    };

    /// The same for a reasoning model of OpenAI's kind: it takes no sampling parameters, and its bound of new tokens counts
    /// the reasoning, too.
    #[must_use]
    pub fn reasoning(mut self) -> Self {
        self.takes = self.takes.without(Takes::NOT_REASONING);
        self.defaults.temperature = Some(1.0);
        self.defaults.top_p = Some(1.0);
        self
    }
}
