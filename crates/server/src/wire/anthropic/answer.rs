//! The answers of `POST /v1/messages` as a whole, and of `POST /v1/messages/count_tokens`.

use byzerllm_core::{ChatResponse, Choice, Error, ErrorKind, FinishReason, Result, Usage};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::wire::chat_answer::choice_failed;
use crate::wire::describe::words;
use crate::wire::notes::Notes;

/// Why an answer ended.
const STOP_REASONS: &[&str] = &["end_turn", "max_tokens", "tool_use", "refusal"];

/// The whole answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Message")]
pub(crate) struct MessageAnswer {
    /// Behind the underscore the id of the request.
    id: String,
    r#type: &'static str,
    role: &'static str,
    /// The deployment.
    model: String,
    content: Vec<ContentBlock>,
    /// `null` only where a stream begins.
    #[schemars(transform = words(STOP_REASONS))]
    stop_reason: Option<&'static str>,
    /// Which stop sequence ended the answer is not told.
    stop_sequence: Option<()>,
    usage: MessageUsage,
    /// What there is to tell beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// A block of an answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "MessageContentBlock")]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentBlock {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// What the model thought first, for models that do.
    Thinking {
        /// The text.
        thinking: String,
        /// Always empty: only Anthropic's own servers sign.
        signature: &'static str,
    },
    /// A call that the model wants made.
    ToolUse {
        /// Its id.
        id: String,
        /// The function.
        name: String,
        /// The arguments; empty when they were cut off.
        input: Value,
        /// What there is of arguments that were cut off.
        #[serde(skip_serializing_if = "Option::is_none")]
        partial_input: Option<String>,
    },
}

/// The tokens spent.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct MessageUsage {
    /// Tokens of the prompt that no cache had and none took in.
    input_tokens: u32,
    /// Tokens of the prompt that a vendor wrote into its cache.
    cache_creation_input_tokens: u32,
    /// Tokens of the prompt that came from a cache.
    cache_read_input_tokens: u32,
    /// Generated tokens.
    output_tokens: u32,
}

impl From<&Usage> for MessageUsage {
    fn from(usage: &Usage) -> Self {
        let (read, written) = (usage.cached_tokens, usage.cache_written_tokens);
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(read).saturating_sub(written),
            cache_creation_input_tokens: written,
            cache_read_input_tokens: read,
            output_tokens: usage.completion_tokens,
        }
    }
}

/// Anthropic's word for why an answer ended.
///
/// # Errors
/// The failure that ended it.
pub(crate) fn stop_reason(reason: &FinishReason) -> Result<&'static str> {
    match reason {
        FinishReason::Stop => Ok("end_turn"),
        FinishReason::Length => Ok("max_tokens"),
        FinishReason::ToolCalls => Ok("tool_use"),
        FinishReason::ContentFilter => Ok("refusal"),
        FinishReason::Cancelled => Err(Error::new(ErrorKind::Cancelled, "the request was cancelled")),
        FinishReason::Error(detail) => Err(choice_failed(detail.clone())),
    }
}

impl MessageAnswer {
    /// The beginning of a streamed answer.
    pub(crate) fn begun(id: String, model: String) -> Self {
        Self {
            id,
            r#type: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: MessageUsage::default(),
            byzerllm: None,
        }
    }

    /// The whole answer.
    pub(crate) fn new(id: String, model: String, response: ChatResponse, notes: Notes) -> Result<Self> {
        let usage = MessageUsage::from(&response.usage);
        let Some(choice) = response.choices.into_iter().next() else {
            return Err(Error::internal("the answer has no choice; please report this"));
        };
        let reason = stop_reason(&choice.finish_reason).map_err(|error| error.with_usage(response.usage))?;
        Ok(Self {
            content: blocks(choice),
            stop_reason: Some(reason),
            usage,
            byzerllm: notes.some(),
            ..Self::begun(id, model)
        })
    }
}

fn blocks(choice: Choice) -> Vec<ContentBlock> {
    let mut blocks = Vec::new();
    if !choice.reasoning.is_empty() {
        blocks.push(ContentBlock::Thinking { thinking: choice.reasoning, signature: "" });
    }
    if !choice.text.is_empty() {
        blocks.push(ContentBlock::Text { text: choice.text });
    }
    blocks.extend(choice.tool_calls.into_iter().map(|(id, name, arguments)| {
        let (input, partial_input) = match serde_json::from_str(&arguments) {
            Ok(input) => (input, None),
            Err(_) => (Value::Object(serde_json::Map::new()), Some(arguments)),
        };
        ContentBlock::ToolUse { id, name, input, partial_input }
    }));
    blocks
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MessageTokensCount")]
pub(crate) struct CountAnswer {
    pub(crate) input_tokens: u32,
}
