//! Messages as Anthropic's API writes them, in our words.
//!
//! There, the result of a call is a block of a user's message. Here it is a message of its own, so that one message of
//! theirs may become several of ours, in the order of its blocks.

use std::fmt;

use byzerllm_core::{EXTRA_CONTENT, Error, Message, Part, Result, Role, THINKING_BLOCKS};
use schemars::{JsonSchema, json_schema};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::limits;
use crate::wire::describe::{Anything, NoEffect, described, words};
use crate::wire::fields::{Capped, Given, Object, unsupported};
use crate::wire::image;
use crate::wire::message::{ExtraContent, message_of};
use crate::wire::schema::Schema;

/// One message.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesMessage")]
#[serde(deny_unknown_fields)]
pub(crate) struct WireTurn {
    /// Who speaks.
    role: WireRole,
    /// A text, or blocks.
    content: Blocks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
enum WireRole {
    User,
    Assistant,
    System,
}

/// A text, or blocks.
#[derive(Debug)]
pub(crate) enum Blocks {
    Text(String),
    List(Vec<Object<Block>>),
}

described!(Blocks, "Blocks", |generator| {
    let blocks = generator.subschema_for::<Capped<Object<Block>, { limits::CONTENT_PARTS }>>();
    json_schema!({ "anyOf": [{ "type": "string" }, blocks] })
});

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBlocks;
        impl<'de> Visitor<'de> for TextOrBlocks {
            type Value = Blocks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of content blocks")
            }

            fn visit_str<E>(self, text: &str) -> Result<Blocks, E> {
                Ok(Blocks::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Blocks, E> {
                Ok(Blocks::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<Blocks, A::Error> {
                let deserializer = SeqAccessDeserializer::new(blocks);
                Capped::<Object<Block>, { limits::CONTENT_PARTS }>::deserialize(deserializer)
                    .map(|blocks| Blocks::List(blocks.0))
            }
        }
        deserializer.deserialize_any(TextOrBlocks)
    }
}

/// A block. Which fields belong to it, its type says; blocks of other types are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesContentBlockParam")]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    #[schemars(transform = words(&["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"]))]
    r#type: String,
    /// Of `text`.
    #[serde(default)]
    text: Option<String>,
    /// Of `image`.
    #[serde(default)]
    source: Option<Object<Source>>,
    /// Of `tool_use`: the id of the call.
    #[serde(default)]
    id: Option<String>,
    /// Of `tool_use`: the function.
    #[serde(default)]
    name: Option<String>,
    /// Of `tool_use`: the arguments.
    #[serde(default)]
    #[schemars(extend("type" = ["object", "null"]))]
    input: Option<Schema<{ limits::CALL_BYTES }>>,
    /// Of `tool_result`: the call that it answers.
    #[serde(default)]
    tool_use_id: Option<String>,
    /// Of `tool_result`.
    #[serde(default)]
    content: Option<Blocks>,
    /// Of `tool_result`; the model goes by the text.
    #[serde(default, rename = "is_error")]
    _is_error: NoEffect<bool>,
    /// Of `thinking`.
    #[serde(default)]
    thinking: Option<String>,
    /// Of `thinking`: what proves to the vendor that the text is its own. Without it the vendor is not shown the text.
    #[serde(default)]
    signature: Option<String>,
    /// Common prefixes are found without it.
    #[serde(default, rename = "cache_control")]
    _cache_control: NoEffect<Anything>,
    #[serde(default)]
    citations: Given,
    /// Of `redacted_thinking`: thoughts that only the vendor can read.
    #[serde(default)]
    data: Option<String>,
    /// Of `tool_use`: the vendor's signature of the call, as an answer told it.
    #[serde(default)]
    extra_content: Option<Object<ExtraContent>>,
    #[serde(default)]
    title: Given,
    #[serde(default)]
    context: Given,
    /// Which of Anthropic's programs called.
    #[serde(default, rename = "caller")]
    _caller: NoEffect<Anything>,
}

/// Where a picture is.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesImageSource")]
#[serde(deny_unknown_fields)]
struct Source {
    #[schemars(transform = words(&["base64", "url"]))]
    r#type: String,
    /// Of `base64`: the kind of picture.
    #[serde(default)]
    media_type: Option<String>,
    /// Of `base64`: its bytes.
    #[serde(default)]
    data: Option<String>,
    /// Of `url`.
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    file_id: Given,
    #[serde(default)]
    content: Given,
}

/// The messages of a request. A last one of the assistant is for models that go on from it, by a field of the message
/// or, with an empty name, as it is.
pub(crate) fn messages(
    system: Option<Blocks>,
    turns: Vec<Object<WireTurn>>,
    continuation: Option<&str>,
) -> Result<Vec<Message>> {
    if turns.is_empty() {
        return Err(Error::invalid("messages", "`messages` must hold at least one message"));
    }
    let mut messages = Vec::new();
    if let Some(system) = system {
        let message = text_of(Role::System, system, "system")?;
        if !message.content.is_empty() {
            messages.push(message);
        }
    }
    let last = turns.len() - 1;
    for (index, Object(turn)) in turns.into_iter().enumerate() {
        let goes_on = index == last && turn.role == WireRole::Assistant;
        if goes_on && continuation.is_none() {
            return Err(unsupported(
                format!("messages[{index}]"),
                "going on from a last message of the assistant is",
            ));
        }
        let path = format!("messages[{index}].content");
        match turn.role {
            WireRole::User => user(turn.content, &path, &mut messages)?,
            WireRole::Assistant => messages.push(assistant(turn.content, &path)?),
            WireRole::System => messages.push(text_of(Role::System, turn.content, &path)?),
        }
        if let Some(field) = continuation.filter(|field| goes_on && !field.is_empty())
            && let Some(message) = messages.last_mut()
        {
            message.extra.insert(field.to_owned(), true.into());
        }
    }
    Ok(messages)
}

/// A message of text alone.
fn text_of(role: Role, blocks: Blocks, path: &str) -> Result<Message> {
    let parts = parts(blocks, path)?;
    let image = parts.iter().position(|part| matches!(part, Part::Image { .. }));
    match image {
        Some(place) => Err(unsupported(format!("{path}[{place}]"), "an image here is")),
        None => Ok(message_of(role, parts)),
    }
}

/// Texts and images.
fn parts(blocks: Blocks, path: &str) -> Result<Vec<Part>> {
    match blocks {
        Blocks::Text(text) => Ok(vec![Part::Text { text }]),
        Blocks::List(list) => list
            .into_iter()
            .enumerate()
            .map(|(index, Object(block))| block.into_part(&format!("{path}[{index}]")))
            .collect(),
    }
}

/// A user's message: results of calls are messages of their own.
fn user(blocks: Blocks, path: &str, messages: &mut Vec<Message>) -> Result<()> {
    let list = match blocks {
        Blocks::Text(text) => {
            messages.push(Message::new(Role::User, text));
            return Ok(());
        }
        Blocks::List(list) => list,
    };
    if list.is_empty() {
        return Err(Error::invalid(path.to_owned(), format!("`{path}` must hold at least one block")));
    }
    let mut said = Vec::new();
    for (index, Object(block)) in list.into_iter().enumerate() {
        let place = format!("{path}[{index}]");
        if block.r#type != "tool_result" {
            said.push(block.into_part(&place)?);
            continue;
        }
        if !said.is_empty() {
            messages.push(message_of(Role::User, std::mem::take(&mut said)));
        }
        let call = block.tool_use_id.ok_or_else(|| missing(&place, "tool_use_id"))?;
        let content = match block.content {
            Some(content) => parts(content, &format!("{place}.content"))?,
            None => Vec::new(),
        };
        let mut message = message_of(Role::Tool, content);
        message.extra.insert("tool_call_id".to_owned(), call.into());
        messages.push(message);
    }
    if !said.is_empty() {
        messages.push(message_of(Role::User, said));
    }
    Ok(())
}

/// An assistant's message: text, thoughts and calls.
fn assistant(blocks: Blocks, path: &str) -> Result<Message> {
    let list = match blocks {
        Blocks::Text(text) => return Ok(Message::new(Role::Assistant, text)),
        Blocks::List(list) => list,
    };
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let mut signed = Vec::new();
    for (index, Object(block)) in list.into_iter().enumerate() {
        let place = format!("{path}[{index}]");
        match block.r#type.as_str() {
            "thinking" => {
                let thinking = block.thinking.ok_or_else(|| missing(&place, "thinking"))?;
                if let Some(signature) = block.signature.filter(|signature| !signature.is_empty()) {
                    signed.push(
                        json!({ "type": "thinking", "thinking": thinking.as_str(), "signature": signature }),
                    );
                }
                if !thinking.is_empty() {
                    thoughts.push(thinking);
                }
            }
            "redacted_thinking" => {
                let data = block.data.ok_or_else(|| missing(&place, "data"))?;
                signed.push(json!({ "type": "redacted_thinking", "data": data }));
            }
            "tool_use" => calls.push(block.into_call(&place)?),
            _ => match block.into_part(&place)? {
                Part::Text { text } => texts.push(text),
                Part::Image { .. } => return Err(unsupported(place, "an image of the assistant is")),
            },
        }
    }
    if calls.len() > limits::TOOL_CALLS {
        let max = limits::TOOL_CALLS;
        return Err(Error::invalid(path.to_owned(), format!("`{path}` holds more than {max} calls")));
    }
    let mut message = Message::new(Role::Assistant, texts.join("\n"));
    if !thoughts.is_empty() {
        message.extra.insert("reasoning_content".to_owned(), thoughts.join("\n").into());
    }
    if !signed.is_empty() {
        message.extra.insert(THINKING_BLOCKS.to_owned(), Value::Array(signed));
    }
    if !calls.is_empty() {
        message.extra.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Ok(message)
}

fn missing(place: &str, field: &str) -> Error {
    let path = format!("{place}.{field}");
    Error::invalid(path.clone(), format!("the field `{path}` is missing"))
}

impl Block {
    /// A text or a picture.
    fn into_part(self, place: &str) -> Result<Part> {
        let odd = self.data.is_some() || self.title.0 || self.context.0;
        match self.r#type.as_str() {
            kind @ ("text" | "image") if odd => {
                let message = format!("`{place}` holds what no block of type '{kind}' has");
                Err(Error::invalid(place.to_owned(), message))
            }
            "text" if self.citations.0 => Err(unsupported(format!("{place}.citations"), "citing is")),
            "text" => Ok(Part::Text { text: self.text.ok_or_else(|| missing(place, "text"))? }),
            "image" => {
                let Object(source) = self.source.ok_or_else(|| missing(place, "source"))?;
                source.into_part(&format!("{place}.source"))
            }
            kind => {
                let kind: String = kind.chars().take(40).collect();
                Err(unsupported(place, &format!("content of type '{kind}' is")))
            }
        }
    }

    /// A call as chat templates expect it.
    fn into_call(self, place: &str) -> Result<Value> {
        let id = self.id.ok_or_else(|| missing(place, "id"))?;
        let name = self.name.ok_or_else(|| missing(place, "name"))?;
        let arguments = match self.input.map(|Schema(input)| input) {
            Some(Value::Null) | None => return Err(missing(place, "input")),
            Some(arguments @ Value::Object(_)) => arguments,
            Some(_) => {
                let path = format!("{place}.input");
                return Err(Error::invalid(path.clone(), format!("`{path}` must be an object")));
            }
        };
        let function = json!({"name": name, "arguments": arguments});
        let mut call = json!({"id": id, "type": "function", "function": function});
        if let Some(extra) = self.extra_content.and_then(|Object(extra)| extra.into_value()) {
            call[EXTRA_CONTENT] = extra;
        }
        Ok(call)
    }
}

impl Source {
    fn into_part(self, place: &str) -> Result<Part> {
        match self.r#type.as_str() {
            _ if self.file_id.0 || self.content.0 => Err(unsupported(place, "a file that is kept here is")),
            "url" => image::at_url(self.url.ok_or_else(|| missing(place, "url"))?, None, place, "url"),
            "base64" => {
                let kind = self.media_type.ok_or_else(|| missing(place, "media_type"))?;
                let bytes = self.data.ok_or_else(|| missing(place, "data"))?;
                image::of_bytes(&kind, &bytes, place)
            }
            _ => Err(unsupported(format!("{place}.type"), "an image that is neither bytes nor a URL is")),
        }
    }
}
