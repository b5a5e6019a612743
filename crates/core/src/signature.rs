//! What a vendor wants to see again with the conversation, so that its model goes on from its own reasoning.
//!
//! Reasoning that a vendor signed is worth nothing to it without the signature: Anthropic's API takes thinking beside
//! tools back only as it gave it (Claude docs, "Extended thinking", section on tool use), Gemini 3 refuses a call
//! without the signature of its thought (Gemini API docs, "Thought signatures"). Answers tell them as
//! [`crate::Event::Signature`]. In a [`crate::Message`] the blocks stand under [`THINKING_BLOCKS`] as [`ThinkingBlock`]s,
//! and a call's signature stands in the call, where [`call_signature`] finds it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The field of a message's extras that holds its blocks of signed reasoning.
pub const THINKING_BLOCKS: &str = "thinking_blocks";
/// The field of a call in a message's extras that holds its signature, as Google's OpenAI-compatible API names it.
pub const EXTRA_CONTENT: &str = "extra_content";

/// One signature of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Signature {
    /// Of a block of reasoning, which ends here: all reasoning text of the choice since the block before.
    Reasoning {
        /// The vendor's word for it.
        signature: String,
    },
    /// Of a block of reasoning that nobody but the vendor can read.
    Hidden {
        /// The block.
        data: String,
    },
    /// Of a tool call of which no delta has come yet.
    ToolCall {
        /// Which call of the choice.
        index: u32,
        /// The vendor's word for it.
        signature: String,
    },
}

impl Signature {
    /// Bytes of the vendor's word.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Reasoning { signature } | Self::ToolCall { signature, .. } => signature.len(),
            Self::Hidden { data } => data.len(),
        }
    }

    /// Whether the vendor's word is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A block of reasoning as it goes back to the vendor. Its JSON is that of Anthropic's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ThinkingBlock {
    /// Readable reasoning.
    Thinking {
        /// The text.
        thinking: String,
        /// What proves to the vendor that the text is its own.
        signature: String,
    },
    /// Reasoning that only the vendor can read.
    RedactedThinking {
        /// The block.
        data: String,
    },
}

/// The signatures of one choice, put together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signatures {
    /// Blocks of reasoning, in order. Reasoning that nobody signed is in none.
    #[serde(default)]
    pub blocks: Vec<ThinkingBlock>,
    /// Signatures of tool calls, by the call's index.
    #[serde(default)]
    pub calls: BTreeMap<u32, String>,
}

impl Signatures {
    /// Takes a signature; `reasoning` is the choice's reasoning text since the block before.
    pub fn take(&mut self, signature: Signature, reasoning: String) {
        match signature {
            Signature::Reasoning { signature } => {
                self.blocks.push(ThinkingBlock::Thinking { thinking: reasoning, signature });
            }
            Signature::Hidden { data } => self.blocks.push(ThinkingBlock::RedactedThinking { data }),
            Signature::ToolCall { index, signature } => {
                self.calls.insert(index, signature);
            }
        }
    }
}

/// What stands under [`EXTRA_CONTENT`] of a call with this signature.
#[must_use]
pub fn extra_content(signature: &str) -> Value {
    json!({ "google": { "thought_signature": signature } })
}

/// The signature of a call of a message's `tool_calls`.
#[must_use]
pub fn call_signature(call: &Value) -> Option<&str> {
    let signature = call.get(EXTRA_CONTENT)?.get("google")?.get("thought_signature")?.as_str()?;
    (!signature.is_empty()).then_some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_finds_its_signature_again() {
        let call = json!({ "id": "c", EXTRA_CONTENT: extra_content("s") });
        assert_eq!(call_signature(&call), Some("s"));
        for none in [json!({}), json!({ EXTRA_CONTENT: extra_content("") }), json!({ EXTRA_CONTENT: 1 })] {
            assert_eq!(call_signature(&none), None, "{none}");
        }
    }
}
