//! What a caller asks of a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{GenerationDefaults, LEGACY_DEFAULTS, Message, OPENAI_DEFAULTS, Sampling};

/// The input of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Generate this many candidates and keep the `n` with the highest mean log probability; absent means `n`.
    #[serde(default)]
    pub best_of: Option<u32>,
    /// How to sample.
    #[serde(default)]
    pub sampling: Sampling,
    /// What the answer must look like; enforced while decoding.
    #[serde(default)]
    pub format: ResponseFormat,
    /// The functions that the model may call.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// Whether and which of them it must call.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// Whether an answer may hold more than one call.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub parallel_tool_calls: bool,
    /// Whose defaults fill what neither request, deployment nor checkpoint sets.
    #[serde(default)]
    pub front_end: FrontEnd,
    /// Whether `max_tokens` may be cut to what the context leaves after the prompt. The runtime sets it where the
    /// number is a default; a caller's own number that does not fit is refused.
    #[serde(default)]
    pub clip_max_tokens: bool,
    /// Whether the caller folds the answer, so that a vendor may be asked for it in one piece.
    #[serde(default)]
    pub whole: bool,
    /// Parameters of one vendor only, under the vendor's own names. A model refuses those that it does not know
    /// ([`crate::ChatModel::extra_parameters`]).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// Text that a grammar in Lark syntax derives.
    Grammar(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// A function that a model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name: 1 to 64 letters, digits, dashes or underscores.
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of its arguments; absent means an object with any members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Whether the arguments must obey the schema even where the model decides to call; enforced while decoding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// Whether a model calls tools.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum ToolChoice {
    /// It must not: the tools are shown to it, calls are text.
    None,
    /// It decides.
    #[default]
    Auto,
    /// It must call at least one; enforced while decoding.
    Required,
    /// It must call this one, once; enforced while decoding.
    Named(String),
}

/// The front end that a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_yes(value: &bool) -> bool {
    *value
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
            best_of: None,
            sampling: Sampling::default(),
            format: ResponseFormat::Text,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            front_end: FrontEnd::default(),
            clip_max_tokens: false,
            whole: false,
            extra: Map::new(),
        }
    }
}
