//! The answers of `POST /v1/messages` as a whole, and of `POST /v1/messages/count_tokens`.

use byzerllm_core::{
    ChatResponse, Choice, Error, ErrorKind, FinishReason, Result, ThinkingBlock, Usage, extra_content,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::wire::chat_answer::choice_failed;
use crate::wire::describe::words;
use crate::wire::notes::Notes;

/// Why an answer ended.
pub(super) const STOP_REASONS: &[&str] = &["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"];

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
    /// The stop sequence that ended the answer, where the model or its vendor says which.
    stop_sequence: Option<String>,
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
        /// What proves to the vendor that the text is its own; empty where nobody signs.
        signature: String,
    },
    /// Thoughts that only the vendor can read.
    RedactedThinking {
        /// What it reads.
        data: String,
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
        /// The vendor's signature of the call, which it wants to see again.
        #[serde(skip_serializing_if = "Option::is_none")]
        extra_content: Option<Value>,
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

/// Anthropic's word for why an answer ended, perhaps with a stop sequence.
///
/// # Errors
/// The failure that ended it.
pub(crate) fn stop_reason(reason: &FinishReason, stop: Option<&str>) -> Result<&'static str> {
    match reason {
        FinishReason::Stop if stop.is_some() => Ok("stop_sequence"),
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
        let Some(mut choice) = response.choices.into_iter().next() else {
            return Err(Error::internal("the answer has no choice; please report this"));
        };
        let stop_sequence = choice.stop.take();
        let reason = stop_reason(&choice.finish_reason, stop_sequence.as_deref())
            .map_err(|error| error.with_usage(response.usage))?;
        Ok(Self {
            content: blocks(choice),
            stop_reason: Some(reason),
            stop_sequence,
            usage,
            byzerllm: notes.some(),
            ..Self::begun(id, model)
        })
    }
}

fn blocks(choice: Choice) -> Vec<ContentBlock> {
    let mut blocks = Vec::new();
    let mut signed = 0;
    for block in choice.signatures.blocks {
        blocks.push(match block {
            ThinkingBlock::Thinking { thinking, signature } => {
                signed += thinking.len();
                ContentBlock::Thinking { thinking, signature }
            }
            ThinkingBlock::RedactedThinking { data } => ContentBlock::RedactedThinking { data },
        });
    }
    if let Some(thinking) = choice.reasoning.get(signed..).filter(|rest| !rest.is_empty()) {
        let (thinking, signature) = (thinking.to_owned(), String::new());
        blocks.push(ContentBlock::Thinking { thinking, signature });
    }
    if !choice.text.is_empty() {
        blocks.push(ContentBlock::Text { text: choice.text });
    }
    let signatures = choice.signatures.calls;
    blocks.extend((0..).zip(choice.tool_calls).map(|(index, (id, name, arguments))| {
        let (input, partial_input) = match serde_json::from_str(&arguments) {
            Ok(input) => (input, None),
            Err(_) => (Value::Object(serde_json::Map::new()), Some(arguments)),
        };
        let extra_content = signatures.get(&index).map(|signature| extra_content(signature));
        ContentBlock::ToolUse { id, name, input, partial_input, extra_content }
    }));
    blocks
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MessageTokensCount")]
pub(crate) struct CountAnswer {
    pub(crate) input_tokens: u32,
}
