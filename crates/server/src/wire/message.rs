//! Messages of a conversation as the OpenAI API writes them.

use std::fmt;

use byzerllm_core::{Error, Message, Result, Role};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::fields::{Capped, Given, Object, unsupported};
use crate::limits;

/// One message. A message that our own answers or OpenAI's client library produced comes back in unchanged, so the
/// fields of an answer are known here (`refusal`, `annotations`, `audio`); they must be empty.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireMessage {
    role: WireRole,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Capped<Object<WireToolCall>, { limits::TOOL_CALLS }>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    refusal: Given,
    #[serde(default)]
    audio: Given,
    #[serde(default)]
    annotations: Given,
    #[serde(default)]
    function_call: Given,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
    Parts(Vec<Object<Part>>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Given,
    #[serde(default)]
    input_audio: Given,
    #[serde(default)]
    file: Given,
    #[serde(default)]
    video_url: Given,
    #[serde(default)]
    refusal: Given,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireToolCall {
    id: String,
    #[serde(default)]
    r#type: Option<String>,
    function: Object<WireFunction>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFunction {
    name: String,
    arguments: String,
}

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
                Capped::<Object<Part>, { limits::CONTENT_PARTS }>::deserialize(deserializer)
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
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => join(parts, &path("content"))?,
            None if self.role == WireRole::Assistant && !calls.is_empty() => String::new(),
            None => {
                let path = path("content");
                return Err(Error::invalid(path.clone(), format!("the field `{path}` is missing")));
            }
        };
        let mut message = Message::new(self.role.into(), content);
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

/// Text parts become one text, a line each.
fn join(parts: Vec<Object<Part>>, path: &str) -> Result<String> {
    let mut text = String::new();
    for (index, Object(part)) in parts.into_iter().enumerate() {
        let place = format!("{path}[{index}]");
        let other = [part.image_url, part.input_audio, part.file, part.video_url, part.refusal];
        if part.r#type != "text" || other.iter().any(|given| given.0) {
            let kind: String = part.r#type.chars().take(40).collect();
            return Err(unsupported(place, &format!("content of type '{kind}' is")));
        }
        let Some(piece) = part.text else {
            let place = format!("{place}.text");
            return Err(Error::invalid(place.clone(), format!("the field `{place}` is missing")));
        };
        if index > 0 {
            text.push('\n');
        }
        text.push_str(&piece);
    }
    Ok(text)
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
        Ok(json!({"id": self.id, "type": "function", "function": function}))
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
