//! Messages in OpenAI's words.

use std::borrow::Cow;
use std::collections::BTreeMap;

use byzerllm_core::{Error, ErrorKind, Input, Message, Part, Result, Role, THINKING_BLOCKS};
use serde::Serialize;
use serde_json::Value;

use super::{Quirks, Takes};

/// A message.
#[derive(Debug, Serialize)]
pub struct WireMessage<'a> {
    /// Who speaks.
    pub role: &'static str,
    /// What is said; `null` beside tool calls.
    pub content: Option<Content<'a>>,
    /// The calls of an assistant's message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<WireCall<'a>>,
    /// Further fields.
    #[serde(flatten)]
    pub rest: BTreeMap<&'static str, &'a Value>,
}

/// What a message says.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Content<'a> {
    /// Text.
    Text(&'a str),
    /// Text and pictures.
    Parts(Vec<WirePart<'a>>),
}

/// A piece of a message.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WirePart<'a> {
    /// Text.
    Text {
        /// The text.
        text: &'a str,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: WireImage<'a>,
    },
}

/// A picture.
#[derive(Debug, Serialize)]
pub struct WireImage<'a> {
    /// A URL, or the bytes in base64 where [`Quirks::bare_images`] says so.
    pub url: &'a str,
    /// How closely to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
}

/// A call that the model made.
#[derive(Debug, Serialize)]
pub struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireCallFunction<'a>,
}

#[derive(Debug, Serialize)]
struct WireCallFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

/// Writes the input of a request.
pub(super) fn messages<'a>(quirks: &Quirks, input: &'a Input) -> Result<Vec<WireMessage<'a>>> {
    match input {
        Input::Messages(messages) => {
            messages.iter().enumerate().map(|(index, given)| message(quirks, index, given)).collect()
        }
        Input::Text(text) => Ok(vec![WireMessage {
            role: Role::User.as_str(),
            content: Some(Content::Text(text)),
            tool_calls: Vec::new(),
            rest: BTreeMap::new(),
        }]),
        Input::Tokens(_) => {
            let message = format!("{} takes no token ids; send text", quirks.vendor);
            Err(Error::new(ErrorKind::Unsupported, message).with_param("prompt_token_ids"))
        }
    }
}

fn message<'a>(quirks: &Quirks, index: usize, given: &'a Message) -> Result<WireMessage<'a>> {
    let mut wire = WireMessage {
        role: given.role.as_str(),
        content: Some(Content::Text(&given.content)),
        tool_calls: Vec::new(),
        rest: BTreeMap::new(),
    };
    if given.has_images() {
        if !quirks.takes.has(Takes::IMAGES) {
            let message = format!("{} takes no pictures for this model; leave them out", quirks.vendor);
            return Err(
                Error::new(ErrorKind::Unsupported, message).with_param(format!("messages[{index}].content"))
            );
        }
        wire.content = Some(Content::Parts(given.parts.iter().map(|given| part(quirks, given)).collect()));
    }
    for (name, value) in &given.extra {
        match name.as_str() {
            "tool_calls" => wire.tool_calls = calls(index, value)?,
            "tool_call_id" => {
                wire.rest.insert("tool_call_id", value);
            }
            "name" if quirks.takes.has(Takes::NAMES) => {
                wire.rest.insert("name", value);
            }
            // The call's id says which function it was.
            "name" if given.role == Role::Tool => {}
            "reasoning_content" if quirks.reasoning_back => {
                wire.rest.insert("reasoning_content", value);
            }
            // What the model once thought is no part of what is said.
            "reasoning_content" | THINKING_BLOCKS => {}
            other => match quirks.message_extra.iter().find(|known| **known == other) {
                Some(known) => {
                    wire.rest.insert(known, value);
                }
                None => {
                    let shown: String = other.chars().take(64).collect();
                    let shown = shown.escape_debug();
                    let message = format!("{} takes no '{shown}' in a message; leave it out", quirks.vendor);
                    let error = Error::new(ErrorKind::Unsupported, message);
                    return Err(error.with_param(format!("messages[{index}].{shown}")));
                }
            },
        }
    }
    if !wire.tool_calls.is_empty() && given.content.is_empty() && !given.has_images() {
        wire.content = None;
    }
    Ok(wire)
}

fn part<'a>(quirks: &Quirks, part: &'a Part) -> WirePart<'a> {
    match part {
        Part::Text { text } => WirePart::Text { text },
        Part::Image { url, detail } => {
            let bytes = url.strip_prefix("data:").and_then(|data| data.split_once(";base64,"));
            let url = match bytes {
                Some((_, bytes)) if quirks.bare_images => bytes,
                _ => url,
            };
            WirePart::ImageUrl { image_url: WireImage { url, detail: detail.as_deref() } }
        }
    }
}

/// Arguments are a value with us and JSON in a string on the wire.
fn calls(index: usize, value: &Value) -> Result<Vec<WireCall<'_>>> {
    let path = || format!("messages[{index}].tool_calls");
    let malformed = || {
        let path = path();
        Error::invalid(
            path.clone(),
            format!("`{path}` must be a list of calls, each with an id and a function"),
        )
    };
    let read = |call| {
        let call: &Value = call;
        let function = call.get("function").ok_or_else(malformed)?;
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => Cow::Borrowed("{}"),
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(value) => Cow::Owned(value.to_string()),
        };
        Ok(WireCall {
            id: call.get("id").and_then(Value::as_str).ok_or_else(malformed)?,
            r#type: "function",
            function: WireCallFunction {
                name: function.get("name").and_then(Value::as_str).ok_or_else(malformed)?,
                arguments,
            },
        })
    };
    value.as_array().ok_or_else(malformed)?.iter().map(read).collect()
}
