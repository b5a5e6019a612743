//! Messages of a conversation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions that stand above the conversation (`developer` of newer APIs maps here).
    System,
    /// The human.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name that chat templates expect.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A piece of a message that is not text alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// Where it is: a `data:` URL with its bytes in base64, or an `http(s)` URL that the vendor fetches.
        url: String,
        /// How closely to look: `low`, `high` or `auto`, where the vendor knows the word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

/// One message. `extra` carries what only templates and vendors read: `name`, `tool_call_id`, `reasoning_content`, and
/// `tool_calls` as OpenAI writes them but for the arguments, which are a value and not JSON in a string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; empty for an assistant message that holds only tool calls. Where there are parts: their texts, a line
    /// each.
    #[serde(default)]
    pub content: String,
    /// The message piece by piece, when it holds more than text; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Further fields of the message, handed to the template unchanged.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message with text only.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), parts: Vec::new(), extra: Map::new() }
    }

    /// A message of several parts.
    #[must_use]
    pub fn of_parts(role: Role, parts: Vec<Part>) -> Self {
        let texts: Vec<&str> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Text { text } => Some(text.as_str()),
                Part::Image { .. } => None,
            })
            .collect();
        Self { role, content: texts.join("\n"), parts, extra: Map::new() }
    }

    /// Whether it holds a picture.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Image { .. }))
    }
}
