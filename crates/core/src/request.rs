//! What a caller asks of a model.

use serde::{Deserialize, Serialize};

use crate::{GenerationDefaults, LEGACY_DEFAULTS, Message, OPENAI_DEFAULTS, Sampling};

/// The input of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Input {
    /// A conversation; the model's chat template renders it.
    Messages(Vec<Message>),
    /// Raw text; special tokens in it are parsed as such, and a beginning-of-sequence token is added
    /// exactly when the model's tokenizer adds one.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

/// A generation request. The fields of [`Sampling`] are optional: what is absent comes from the deployment, the
/// checkpoint or the front end, in this order (see [`crate::resolve`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// The deployment's name.
    pub model: String,
    /// What to continue.
    pub input: Input,
    /// Send the prompt's text before the generated text.
    #[serde(default)]
    pub echo: bool,
    /// Report the log probabilities of the prompt's own tokens; `Some(k)` adds the `k` most likely alternatives.
    #[serde(default)]
    pub prompt_logprobs: Option<u32>,
    /// How many independent choices to generate.
    #[serde(default = "one")]
    pub n: u32,
    /// How to sample.
    #[serde(default)]
    pub sampling: Sampling,
    /// Whose defaults fill what neither request, deployment nor checkpoint sets.
    #[serde(default)]
    pub front_end: FrontEnd,
    /// Whether `max_tokens` may be cut to what the context leaves after the prompt. The runtime sets it where the
    /// number is a default; a caller's own number that does not fit is refused.
    #[serde(default)]
    pub clip_max_tokens: bool,
}

/// The front end that a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontEnd {
    /// OpenAI's API, and everything new.
    #[default]
    OpenAi,
    /// Programs written against Byzer-LLM.
    Legacy,
}

impl FrontEnd {
    /// Its defaults.
    #[must_use]
    pub const fn defaults(self) -> &'static GenerationDefaults {
        match self {
            Self::OpenAi => &OPENAI_DEFAULTS,
            Self::Legacy => &LEGACY_DEFAULTS,
        }
    }
}

fn one() -> u32 {
    1
}

impl ChatRequest {
    /// A request with default sampling and one choice.
    pub fn new(model: impl Into<String>, input: Input) -> Self {
        Self {
            model: model.into(),
            input,
            echo: false,
            prompt_logprobs: None,
            n: 1,
            sampling: Sampling::default(),
            front_end: FrontEnd::default(),
            clip_max_tokens: false,
        }
    }
}
