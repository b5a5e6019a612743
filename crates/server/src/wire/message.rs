//! Messages of a conversation as the OpenAI API writes them.

use std::fmt;

use byzerllm_core::{
    EXTRA_CONTENT, Error, Message, Part, Result, Role, THINKING_BLOCKS, ThinkingBlock, extra_content,
};
use schemars::{JsonSchema, json_schema};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::describe::{Anything, NoEffect, described, words};
use super::fields::{Capped, Given, Object, unsupported};
use super::image;
use crate::limits;

/// A conversation: its messages, or a text, which is what the user says.
#[derive(Debug)]
pub(crate) enum WireMessages {
    Text(String),
    List(Vec<Object<WireMessage>>),
}

described!(WireMessages, "WireMessages", |generator| {
    let list = generator.subschema_for::<Capped<Object<WireMessage>, { limits::MESSAGES }>>();
    json_schema!({ "anyOf": [{ "type": "string" }, { "allOf": [list], "minItems": 1 }] })
});

impl<'de> Deserialize<'de> for WireMessages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Conversation;
        impl<'de> Visitor<'de> for Conversation {
            type Value = WireMessages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages or a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<WireMessages, E> {
                Ok(WireMessages::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<WireMessages, A::Error> {
                let deserializer = SeqAccessDeserializer::new(items);
                Capped::<_, { limits::MESSAGES }>::deserialize(deserializer)
                    .map(|list| WireMessages::List(list.0))
            }
        }
        deserializer.deserialize_any(Conversation)
    }
}

impl WireMessages {
    /// The messages in our words.
    pub(crate) fn into_messages(self) -> Result<Vec<Message>> {
        let list = match self {
            Self::Text(text) => return Ok(vec![Message::new(Role::User, text)]),
            Self::List(list) => list,
        };
        if list.is_empty() {
            return Err(Error::invalid("messages", "`messages` must hold at least one message"));
        }
        list.into_iter().enumerate().map(|(index, wire)| wire.0.into_message(index)).collect()
    }
}

/// One message. A message that our own answers or OpenAI's client library produced comes back in unchanged, so the
/// fields of an answer are known here (`refusal`, `annotations`, `audio`); they must be empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionMessage")]
#[serde(deny_unknown_fields)]
pub(crate) struct WireMessage {
    /// Who speaks; `developer` is `system`.
    role: WireRole,
    /// The text, or parts of it that are joined by line ends, or texts and images; may be absent beside `tool_calls`.
    #[serde(default)]
    content: Option<Content>,
    /// Who it is, for templates that tell speakers apart.
    #[serde(default)]
    name: Option<String>,
    /// The calls that an assistant's message made.
    #[serde(default)]
    tool_calls: Option<Capped<Object<WireToolCall>, { limits::TOOL_CALLS }>>,
    /// Which call a message of the role `tool` answers.
    #[serde(default)]
    tool_call_id: Option<String>,
    /// What the model thought before it answered.
    #[serde(default)]
    reasoning_content: Option<String>,
    /// The same block by block with the vendor's signatures, as an answer told them. Vendors that sign take no other.
    #[serde(default)]
    thinking_blocks: Option<Capped<Object<WireThinking>, { limits::CONTENT_PARTS }>>,
    #[serde(default)]
    refusal: Given,
    #[serde(default)]
    audio: Given,
    #[serde(default)]
    annotations: Given,
    /// The old form of `tool_calls`.
    #[serde(default)]
    function_call: Given,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
enum WireRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Debug)]
enum Content {
    Text(String),
    Parts(Vec<Object<WirePart>>),
}

/// A part of a message: text, or a picture for models that take some. Other parts are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionContentPart")]
#[serde(deny_unknown_fields)]
struct WirePart {
    #[schemars(transform = words(&["text", "image_url"]))]
    r#type: String,
    /// With the type `text`.
    #[serde(default)]
    text: Option<String>,
    /// With the type `image_url`.
    #[serde(default)]
    image_url: Option<Object<ImageUrl>>,
    #[serde(default)]
    input_audio: Given,
    #[serde(default)]
    file: Given,
    #[serde(default)]
    video_url: Given,
    #[serde(default)]
    refusal: Given,
}

/// Where a picture is.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionImageUrl")]
#[serde(deny_unknown_fields)]
struct ImageUrl {
    /// A `data:` URL with the picture's bytes in base64, or an http(s) address that the vendor fetches.
    url: String,
    /// How closely to look.
    #[serde(default)]
    #[schemars(transform = words(&["auto", "low", "high"]))]
    detail: Option<String>,
}

/// A call that the model made.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionMessageToolCall")]
#[serde(deny_unknown_fields)]
struct WireToolCall {
    id: String,
    #[serde(default)]
    #[schemars(transform = words(&["function"]))]
    r#type: Option<String>,
    function: Object<WireFunction>,
    /// The vendor's signature of the call, as an answer told it.
    #[serde(default)]
    extra_content: Option<Object<ExtraContent>>,
}

/// What stands beside a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ToolCallExtraContent")]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtraContent {
    /// As Google's OpenAI-compatible API names it.
    #[serde(default)]
    google: Option<Object<SignedThought>>,
}

/// A signature.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ToolCallSignature")]
#[serde(deny_unknown_fields)]
struct SignedThought {
    #[serde(default)]
    thought_signature: Option<String>,
}

impl ExtraContent {
    /// What a call of ours keeps of it.
    pub(crate) fn into_value(self) -> Option<Value> {
        let signature = self.google.and_then(|Object(google)| google.thought_signature);
        signature.filter(|signature| !signature.is_empty()).map(|signature| extra_content(&signature))
    }
}

/// A block of reasoning.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ThinkingBlock")]
#[serde(deny_unknown_fields)]
struct WireThinking {
    #[schemars(transform = words(&["thinking", "redacted_thinking"]))]
    r#type: String,
    /// Of `thinking`: the text.
    #[serde(default)]
    thinking: Option<String>,
    /// Of `thinking`: what proves to the vendor that the text is its own. Without it the block has no effect.
    #[serde(default)]
    signature: Option<String>,
    /// Of `redacted_thinking`: what only the vendor can read.
    #[serde(default)]
    data: Option<String>,
    /// Common prefixes are found without it.
    #[serde(default, rename = "cache_control")]
    _cache_control: NoEffect<Anything>,
}

impl WireThinking {
    fn into_block(self, path: &str) -> Result<Option<ThinkingBlock>> {
        match (self.r#type.as_str(), self.thinking, self.data) {
            ("thinking", Some(thinking), None) => {
                let signature = self.signature.filter(|signature| !signature.is_empty());
                Ok(signature.map(|signature| ThinkingBlock::Thinking { thinking, signature }))
            }
            ("redacted_thinking", None, Some(data)) => Ok(Some(ThinkingBlock::RedactedThinking { data })),
            _ => {
                let message = format!(
                    "`{path}` must be of type thinking with `thinking`, or redacted_thinking with `data`"
                );
                Err(Error::invalid(path.to_owned(), message))
            }
        }
    }
}

/// What was called.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionMessageFunction")]
#[serde(deny_unknown_fields)]
struct WireFunction {
    name: String,
    /// JSON in a string.
    arguments: String,
}

described!(Content, "Content", |generator| {
    let parts = generator.subschema_for::<Capped<Object<WirePart>, { limits::CONTENT_PARTS }>>();
    json_schema!({ "anyOf": [{ "type": "string" }, parts] })
});

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of content parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                let deserializer = SeqAccessDeserializer::new(parts);
                Capped::<Object<WirePart>, { limits::CONTENT_PARTS }>::deserialize(deserializer)
                    .map(|parts| Content::Parts(parts.0))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

impl WireMessage {
    /// The message in our words; `index` is its place, for errors.
    pub(crate) fn into_message(self, index: usize) -> Result<Message> {
        let path = |field: &str| format!("messages[{index}].{field}");
        for (field, given) in
            [("refusal", self.refusal), ("audio", self.audio), ("annotations", self.annotations)]
        {
            if given.0 {
                return Err(unsupported(path(field), "this is"));
            }
        }
        if self.function_call.0 {
            return Err(unsupported(path("function_call"), "the old form of tool calls is"));
        }
        let calls = self.tool_calls.map(|calls| calls.0).unwrap_or_default();
        if !calls.is_empty() && self.role != WireRole::Assistant {
            return Err(Error::invalid(
                path("tool_calls"),
                "only an assistant's message can hold tool calls",
            ));
        }
        if self.tool_call_id.is_some() != (self.role == WireRole::Tool) {
            let path = path("tool_call_id");
            let message = format!("`{path}`: a tool's message needs one, and no other message has one");
            return Err(Error::invalid(path, message));
        }
        let role = self.role.into();
        let mut message = match self.content {
            Some(Content::Text(text)) => Message::new(role, text),
            Some(Content::Parts(parts)) => joined(role, parts, &path("content"))?,
            None if self.role == WireRole::Assistant && !calls.is_empty() => Message::new(role, ""),
            None => {
                let path = path("content");
                return Err(Error::invalid(path.clone(), format!("the field `{path}` is missing")));
            }
        };
        let texts = [
            ("name", self.name),
            ("tool_call_id", self.tool_call_id),
            ("reasoning_content", self.reasoning_content),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                message.extra.insert(field.to_owned(), Value::String(text));
            }
        }
        let mut blocks = Vec::new();
        for (place, Object(wire)) in self.thinking_blocks.into_iter().flat_map(|list| list.0).enumerate() {
            blocks.extend(wire.into_block(&path(&format!("thinking_blocks[{place}]")))?);
        }
        if !blocks.is_empty() {
            message.extra.insert(THINKING_BLOCKS.to_owned(), json!(blocks));
        }
        if !calls.is_empty() {
            let calls: Result<Vec<Value>> = calls
                .into_iter()
                .enumerate()
                .map(|(call, Object(wire))| wire.into_value(&path(&format!("tool_calls[{call}]"))))
                .collect();
            message.extra.insert("tool_calls".to_owned(), Value::Array(calls?));
        }
        Ok(message)
    }
}

/// Text parts become one text, a line each. Where there is a picture the parts stay apart, too.
fn joined(role: Role, parts: Vec<Object<WirePart>>, path: &str) -> Result<Message> {
    let parts: Result<Vec<Part>> = parts
        .into_iter()
        .enumerate()
        .map(|(index, Object(part))| part.into_part(role, &format!("{path}[{index}]")))
        .collect();
    Ok(message_of(role, parts?))
}

/// A message of parts. Without a picture it is a text.
pub(crate) fn message_of(role: Role, parts: Vec<Part>) -> Message {
    let mut message = Message::of_parts(role, parts);
    if !message.has_images() {
        message.parts = Vec::new();
    }
    message
}

impl WirePart {
    fn into_part(self, role: Role, place: &str) -> Result<Part> {
        let other = [self.input_audio, self.file, self.video_url, self.refusal];
        let odd = other.iter().any(|given| given.0);
        match (self.r#type.as_str(), self.text, self.image_url) {
            ("text", Some(text), None) if !odd => Ok(Part::Text { text }),
            ("text", None, None) if !odd => {
                let place = format!("{place}.text");
                Err(Error::invalid(place.clone(), format!("the field `{place}` is missing")))
            }
            ("image_url", None, Some(Object(image))) if !odd => {
                if !matches!(role, Role::User | Role::Tool) {
                    let role = role.as_str();
                    let message = format!("`{place}`: a message of the role {role} holds no images");
                    return Err(Error::invalid(place.to_owned(), message));
                }
                image::at_url(image.url, image.detail, place, "image_url.url")
            }
            ("image_url", None, None) if !odd => {
                let place = format!("{place}.image_url");
                Err(Error::invalid(place.clone(), format!("the field `{place}` is missing")))
            }
            ("text" | "image_url", _, _) if !odd => {
                let message = format!("`{place}` must hold exactly what its type names");
                Err(Error::invalid(place.to_owned(), message))
            }
            (kind, _, _) => {
                let kind: String = kind.chars().take(40).collect();
                Err(unsupported(place, &format!("content of type '{kind}' is")))
            }
        }
    }
}

impl WireToolCall {
    /// As chat templates expect it: the arguments as a value, not as JSON in a string.
    fn into_value(self, path: &str) -> Result<Value> {
        if self.r#type.as_deref().is_some_and(|kind| kind != "function") {
            return Err(unsupported(format!("{path}.type"), "a tool call that is no function is"));
        }
        let Object(function) = self.function;
        let arguments: Value = serde_json::from_str(&function.arguments).map_err(|error| {
            let path = format!("{path}.function.arguments");
            Error::invalid(path.clone(), format!("`{path}` must be JSON in a string: {error}"))
        })?;
        let function = json!({"name": function.name, "arguments": arguments});
        let mut call = json!({"id": self.id, "type": "function", "function": function});
        if let Some(extra) = self.extra_content.and_then(|Object(extra)| extra.into_value()) {
            call[EXTRA_CONTENT] = extra;
        }
        Ok(call)
    }
}

impl From<WireRole> for Role {
    fn from(role: WireRole) -> Self {
        match role {
            WireRole::System | WireRole::Developer => Self::System,
            WireRole::User => Self::User,
            WireRole::Assistant => Self::Assistant,
            WireRole::Tool => Self::Tool,
        }
    }
}
