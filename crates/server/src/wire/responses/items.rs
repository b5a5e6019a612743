//! Items of the Responses API, in our words.
//!
//! There, what a model thinks, says and calls are items of their own. Here they are one message of the assistant, so that
//! neighbouring items join.

use std::fmt;

use byzerllm_core::{Error, Message, Part, Result, Role, THINKING_BLOCKS, ThinkingBlock};
use schemars::{JsonSchema, json_schema};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::limits;
use crate::wire::describe::{Anything, NoEffect, described, words};
use crate::wire::fields::{Capped, Given, Object, unsupported};
use crate::wire::image;
use crate::wire::message::message_of;

/// A text or a list of at most `MAX`.
#[derive(Debug)]
pub(crate) enum TextOr<T, const MAX: usize> {
    Text(String),
    List(Vec<T>),
}

described!(@[T: JsonSchema, const MAX: usize] TextOr<T, MAX>, "TextOr", |generator| {
    let list = generator.subschema_for::<Capped<T, MAX>>();
    json_schema!({ "anyOf": [{ "type": "string" }, list] })
});

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for TextOr<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Either<T, MAX> {
            type Value = TextOr<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
                let deserializer = SeqAccessDeserializer::new(items);
                Capped::<T, MAX>::deserialize(deserializer).map(|list| TextOr::List(list.0))
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// The input of a request: what the user says, or items.
pub(crate) type WireInput = TextOr<Object<WireItem>, { limits::MESSAGES }>;
/// A text, or parts.
type Contents = TextOr<Object<WireContent>, { limits::CONTENT_PARTS }>;

/// One item. Which fields belong to it, its type says; items of other types are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseInputItem")]
#[serde(deny_unknown_fields)]
pub(crate) struct WireItem {
    /// `message` when absent.
    #[serde(default)]
    #[schemars(transform = words(&["message", "function_call", "function_call_output", "reasoning"]))]
    r#type: Option<String>,
    /// Of `message`: who speaks; `developer` is `system`.
    #[serde(default)]
    #[schemars(transform = words(&["user", "assistant", "system", "developer"]))]
    role: Option<String>,
    /// Of `message` a text or parts; of `reasoning` its parts.
    #[serde(default)]
    content: Option<Contents>,
    /// Of `function_call` and `function_call_output`: which call.
    #[serde(default)]
    call_id: Option<String>,
    /// Of `function_call`: the function.
    #[serde(default)]
    name: Option<String>,
    /// Of `function_call`: JSON in a string.
    #[serde(default)]
    arguments: Option<String>,
    /// Of `function_call_output`: a text or parts.
    #[serde(default)]
    output: Option<Contents>,
    /// Of `reasoning`: what stands for its text where that is not told.
    #[serde(default)]
    summary: Option<Capped<Object<WireContent>, { limits::CONTENT_PARTS }>>,
    /// Of `reasoning`: the vendor's signature of its text, or, without text, what only the vendor can read, as an answer
    /// told it.
    #[serde(default)]
    encrypted_content: Option<String>,
    /// Items are not kept.
    #[serde(default, rename = "id")]
    _id: NoEffect<String>,
    /// Items are complete.
    #[serde(default, rename = "status")]
    _status: NoEffect<String>,
    /// All text is told alike.
    #[serde(default, rename = "phase")]
    _phase: NoEffect<String>,
    #[serde(default)]
    namespace: Given,
    #[serde(default, rename = "caller")]
    _caller: NoEffect<Anything>,
}

/// A part of an item.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseInputContent")]
#[serde(deny_unknown_fields)]
pub(crate) struct WireContent {
    #[schemars(transform = words(&["input_text", "output_text", "input_image", "reasoning_text", "summary_text"]))]
    r#type: String,
    /// Of all but `input_image`.
    #[serde(default)]
    text: Option<String>,
    /// Of `input_image`: a `data:` URL with its bytes in base64, or an http(s) address that the vendor fetches.
    #[serde(default)]
    image_url: Option<String>,
    /// Of `input_image`: how closely to look.
    #[serde(default)]
    #[schemars(transform = words(&["auto", "low", "high"]))]
    detail: Option<String>,
    /// Files that are kept here.
    #[serde(default)]
    file_id: Given,
    #[serde(default)]
    file_data: Given,
    #[serde(default)]
    file_url: Given,
    #[serde(default)]
    filename: Given,
    #[serde(default)]
    refusal: Given,
    /// Of an answer.
    #[serde(default, rename = "annotations")]
    _annotations: NoEffect<Anything>,
    /// Of an answer.
    #[serde(default, rename = "logprobs")]
    _logprobs: NoEffect<Anything>,
}

/// The messages of a request.
pub(crate) fn messages(instructions: Option<&str>, input: WireInput) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    if let Some(text) = instructions.filter(|text| !text.is_empty()) {
        messages.push(Message::new(Role::System, text));
    }
    match input {
        TextOr::Text(text) => messages.push(Message::new(Role::User, text)),
        TextOr::List(items) if items.is_empty() => {
            return Err(Error::invalid("input", "`input` must hold at least one item"));
        }
        TextOr::List(items) => {
            for (index, Object(item)) in items.into_iter().enumerate() {
                item.add(&format!("input[{index}]"), &mut messages)?;
            }
        }
    }
    Ok(messages)
}

fn missing(place: &str, field: &str) -> Error {
    let path = format!("{place}.{field}");
    Error::invalid(path.clone(), format!("the field `{path}` is missing"))
}

/// The last message, when it is an assistant's to which what follows belongs.
fn turn(messages: &mut Vec<Message>, joins: impl Fn(&Message) -> bool) -> &mut Message {
    let same = messages.last().is_some_and(|last| last.role == Role::Assistant && joins(last));
    if !same {
        messages.push(Message::new(Role::Assistant, ""));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

fn has_calls(message: &Message) -> bool {
    message.extra.contains_key("tool_calls")
}

impl WireItem {
    fn add(self, place: &str, messages: &mut Vec<Message>) -> Result<()> {
        if self.namespace.0 {
            return Err(unsupported(format!("{place}.namespace"), "a namespace is"));
        }
        match self.r#type.as_deref() {
            None | Some("message") => self.message(place, messages),
            Some("function_call") => self.call(place, messages),
            Some("function_call_output") => self.result(place, messages),
            Some("reasoning") => self.reasoning(place, messages),
            Some(kind) => {
                let kind: String = kind.chars().take(40).collect();
                Err(unsupported(place, &format!("an item of type '{kind}' is")))
            }
        }
    }

    fn message(self, place: &str, messages: &mut Vec<Message>) -> Result<()> {
        let role = match self.role.as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system" | "developer") => Role::System,
            None => return Err(missing(place, "role")),
            Some(_) => {
                let path = format!("{place}.role");
                let message = format!("`{path}` must be user, assistant, system or developer");
                return Err(Error::invalid(path, message));
            }
        };
        let path = format!("{place}.content");
        let parts = parts(self.content.ok_or_else(|| missing(place, "content"))?, &path)?;
        let image = parts.iter().position(|part| matches!(part, Part::Image { .. }));
        if let Some(image) = image.filter(|_| role != Role::User) {
            let path = format!("{path}[{image}]");
            let role = role.as_str();
            let message = format!("`{path}`: a message of the role {role} holds no images");
            return Err(Error::invalid(path, message));
        }
        let message = message_of(role, parts);
        if role == Role::Assistant {
            // What it says follows what it thought.
            turn(messages, |last| last.content.is_empty() && !has_calls(last)).content = message.content;
        } else {
            messages.push(message);
        }
        Ok(())
    }

    fn call(self, place: &str, messages: &mut Vec<Message>) -> Result<()> {
        let id = self.call_id.ok_or_else(|| missing(place, "call_id"))?;
        let name = self.name.ok_or_else(|| missing(place, "name"))?;
        let arguments = self.arguments.ok_or_else(|| missing(place, "arguments"))?;
        let arguments: Value = serde_json::from_str(&arguments).map_err(|error| {
            let path = format!("{place}.arguments");
            Error::invalid(path.clone(), format!("`{path}` must be JSON in a string: {error}"))
        })?;
        let call = json!({
            "id": id, "type": "function", "function": {"name": name, "arguments": arguments}
        });
        let message = turn(messages, |_| true);
        let calls = message.extra.entry("tool_calls").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(calls) = calls {
            if calls.len() == limits::TOOL_CALLS {
                let max = limits::TOOL_CALLS;
                let text = format!("`{place}`: more than {max} calls follow each other");
                return Err(Error::invalid(place.to_owned(), text));
            }
            calls.push(call);
        }
        Ok(())
    }

    fn result(self, place: &str, messages: &mut Vec<Message>) -> Result<()> {
        let id = self.call_id.ok_or_else(|| missing(place, "call_id"))?;
        let output = self.output.ok_or_else(|| missing(place, "output"))?;
        let mut message = message_of(Role::Tool, parts(output, &format!("{place}.output"))?);
        message.extra.insert("tool_call_id".to_owned(), id.into());
        messages.push(message);
        Ok(())
    }

    fn reasoning(self, place: &str, messages: &mut Vec<Message>) -> Result<()> {
        let summary = self.summary.map(|summary| TextOr::List(summary.0));
        let told = self.content.filter(|content| !matches!(content, TextOr::List(list) if list.is_empty()));
        let proof = self.encrypted_content.filter(|proof| !proof.is_empty());
        let text = match (told, summary) {
            (Some(content), _) => thought(content, &format!("{place}.content"))?,
            (None, Some(summary)) => thought(summary, &format!("{place}.summary"))?,
            (None, None) if proof.is_some() => String::new(),
            (None, None) => return Err(missing(place, "content")),
        };
        if text.is_empty() && proof.is_none() {
            return Ok(());
        }
        let block = proof.map(|proof| match text.as_str() {
            "" => ThinkingBlock::RedactedThinking { data: proof },
            text => ThinkingBlock::Thinking { thinking: text.to_owned(), signature: proof },
        });
        let signs = block.is_some();
        // Several blocks of one thought follow each other when they are signed.
        let message = turn(messages, |last| {
            let thought = last.extra.contains_key("reasoning_content");
            last.content.is_empty()
                && !has_calls(last)
                && (!thought || (signs && last.extra.contains_key(THINKING_BLOCKS)))
        });
        if !text.is_empty() {
            let so_far = message.extra.entry("reasoning_content").or_insert_with(|| "".into());
            *so_far = match so_far.as_str() {
                Some("") | None => text.into(),
                Some(before) => format!("{before}\n{text}").into(),
            };
        }
        if let Some(block) = block {
            let blocks = message.extra.entry(THINKING_BLOCKS).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(blocks) = blocks {
                blocks.push(json!(block));
            }
        }
        Ok(())
    }
}

fn thought(content: Contents, path: &str) -> Result<String> {
    Ok(message_of(Role::Assistant, parts(content, path)?).content)
}

fn parts(contents: Contents, path: &str) -> Result<Vec<Part>> {
    match contents {
        TextOr::Text(text) => Ok(vec![Part::Text { text }]),
        TextOr::List(list) => list
            .into_iter()
            .enumerate()
            .map(|(index, Object(content))| content.into_part(&format!("{path}[{index}]")))
            .collect(),
    }
}

impl WireContent {
    fn into_part(self, place: &str) -> Result<Part> {
        if self.file_id.0 {
            return Err(unsupported(format!("{place}.file_id"), "a file that is kept here is"));
        }
        if self.refusal.0 || self.file_data.0 || self.file_url.0 || self.filename.0 {
            let kind: String = self.r#type.chars().take(40).collect();
            return Err(unsupported(place, &format!("content of type '{kind}' is")));
        }
        match self.r#type.as_str() {
            "input_text" | "output_text" | "reasoning_text" | "summary_text" | "text" => {
                Ok(Part::Text { text: self.text.ok_or_else(|| missing(place, "text"))? })
            }
            "input_image" => {
                let url = self.image_url.ok_or_else(|| missing(place, "image_url"))?;
                image::at_url(url, self.detail, place, "image_url")
            }
            kind => {
                let kind: String = kind.chars().take(40).collect();
                Err(unsupported(place, &format!("content of type '{kind}' is")))
            }
        }
    }
}
