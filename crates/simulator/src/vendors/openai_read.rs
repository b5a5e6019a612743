//! What OpenAI's dialect takes, and what it refuses.

use serde_json::{Map, Value};

use super::flavours::Flavour;
use super::openai::thinks;
use crate::model::{Chat, Choice, Embed, Format, Tool, Turn, Wish};
use crate::protocol::{Door, count, flag, known_model, number, only, required, texts};
use crate::refusal::Refusal;

/// What all of these vendors take.
const COMMON: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "user",
    "tools",
    "tool_choice",
    "response_format",
    "logprobs",
    "top_logprobs",
];

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// The longest prompt, in tokens.
const CONTEXT: u64 = 1_000_000;

/// Reads `chat/completions`.
pub(crate) fn chat(
    body: &Map<String, Value>,
    flavour: &Flavour,
    bytes: u64,
    door: &Door<'_>,
) -> Result<Chat, Refusal> {
    only(body, &[COMMON, flavour.fields])?;
    let model = required(body, "model")?.to_owned();
    known_model(&model, flavour.models, &door.credentials.models)?;
    let mut chat = ranges(body, flavour)?;
    chat.turns = turns(body.get("messages"), flavour.images)?;
    chat.tools = tools(body.get("tools"))?;
    chat.choice = choice(body.get("tool_choice"), &chat.tools)?;
    chat.format = format(body.get("response_format"))?;
    chat.thinking = thinks(flavour, body, &model);
    chat.bytes = bytes;
    chat.model = model;
    if bytes / 4 > CONTEXT {
        return Err(Refusal::TooLong);
    }
    Ok(chat)
}

/// Reads `completions`: a prompt instead of messages.
pub(crate) fn text(
    body: &Map<String, Value>,
    flavour: &Flavour,
    bytes: u64,
    door: &Door<'_>,
) -> Result<Chat, Refusal> {
    only(body, &[COMMON, &["prompt", "suffix", "echo", "best_of", "logit_bias"]])?;
    let model = required(body, "model")?.to_owned();
    known_model(&model, flavour.models, &door.credentials.models)?;
    let prompt = texts(body, "prompt")?;
    if prompt.is_empty() {
        return Err(Refusal::Missing("prompt".to_owned()));
    }
    let mut chat = ranges(body, flavour)?;
    chat.turns = vec![Turn { role: "user".to_owned(), text: prompt.concat(), images: 0 }];
    chat.wish.completion = true;
    (chat.bytes, chat.model) = (bytes, model);
    Ok(chat)
}

fn ranges(body: &Map<String, Value>, flavour: &Flavour) -> Result<Chat, Refusal> {
    number(body, "temperature", 0.0, flavour.temperature)?;
    number(body, "top_p", 0.0, 1.0)?;
    number(body, "presence_penalty", -2.0, 2.0)?;
    number(body, "frequency_penalty", -2.0, 2.0)?;
    number(body, "top_logprobs", 0.0, 20.0)?;
    let stream = flag(body, "stream")?;
    let options = body.get("stream_options").filter(|options| !options.is_null());
    if options.is_some() && !stream {
        let what = "it is only allowed when 'stream' is true".to_owned();
        return Err(Refusal::Invalid("stream_options".to_owned(), what));
    }
    let usage =
        options.and_then(|options| options.get("include_usage")).and_then(Value::as_bool).unwrap_or(false);
    let stop = texts(body, "stop")?;
    if stop.len() > 16 || stop.iter().any(String::is_empty) {
        return Err(Refusal::Invalid("stop".to_owned(), "too many stop strings, or an empty one".to_owned()));
    }
    let limit = match count(body, "max_completion_tokens")? {
        Some(limit) => Some(limit),
        None => count(body, "max_tokens")?,
    };
    let n = count(body, "n")?.unwrap_or(1);
    let n = u32::try_from(n).ok().filter(|n| *n <= 128);
    let n = n.ok_or_else(|| Refusal::Invalid("n".to_owned(), "it must be at most 128".to_owned()))?;
    Ok(Chat {
        stream,
        max_tokens: limit,
        n,
        stop,
        wish: Wish { usage, ..Wish::default() },
        ..Chat::default()
    })
}

/// Reads messages and the order of their roles.
pub(crate) fn turns(messages: Option<&Value>, images: bool) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    let list = match messages {
        None | Some(Value::Null) => return Err(Refusal::Missing("messages".to_owned())),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(_) => return Err(wrong("it must be a list with at least one message")),
    };
    let mut turns: Vec<Turn> = Vec::new();
    let mut open_calls: Vec<&str> = Vec::new();
    for message in list {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if !ROLES.contains(&role) {
            return Err(wrong(&format!("'{role}' is not one of {}", ROLES.join(", "))));
        }
        let calls = message.get("tool_calls").and_then(Value::as_array).filter(|calls| !calls.is_empty());
        if role == "tool" {
            let id = message.get("tool_call_id").and_then(Value::as_str);
            let Some(position) = open_calls.iter().position(|open| Some(*open) == id) else {
                return Err(wrong(
                    "a message of role 'tool' must answer a preceding message with 'tool_calls'",
                ));
            };
            open_calls.remove(position);
        } else if !open_calls.is_empty() {
            return Err(wrong(
                "a message with 'tool_calls' must be followed by one message per 'tool_call_id'",
            ));
        }
        let mut turn = content(message.get("content"), images, calls.is_some())?;
        role.clone_into(&mut turn.role);
        for call in calls.into_iter().flatten() {
            let arguments = call.pointer("/function/arguments").and_then(Value::as_str);
            let Some(arguments) = arguments.filter(|text| serde_json::from_str::<Value>(text).is_ok()) else {
                return Err(wrong("'function.arguments' of a call must be JSON in a text"));
            };
            open_calls
                .push(call.get("id").and_then(Value::as_str).ok_or_else(|| wrong("a call without its id"))?);
            turn.text.push_str(arguments);
        }
        turns.push(turn);
    }
    Ok(turns)
}

fn content(content: Option<&Value>, images: bool, may_be_absent: bool) -> Result<Turn, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    let mut turn = Turn::default();
    match content {
        Some(Value::String(text)) => turn.text.clone_from(text),
        None | Some(Value::Null) if may_be_absent => {}
        Some(Value::Array(parts)) => {
            for part in parts {
                match part.get("type").and_then(Value::as_str) {
                    Some("text") => {
                        turn.text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                    }
                    Some("image_url") if images => {
                        let url = part.pointer("/image_url/url").and_then(Value::as_str).unwrap_or_default();
                        // Zhipu takes a picture's bare base64, too.
                        if url.is_empty() {
                            return Err(wrong("a picture without 'image_url.url'"));
                        }
                        turn.images += 1;
                    }
                    _ => return Err(wrong("a part of a kind that this model does not take")),
                }
            }
        }
        _ => return Err(wrong("'content' must be a text or a list of parts")),
    }
    Ok(turn)
}

/// Reads tools as OpenAI writes them.
pub(crate) fn tools(tools: Option<&Value>) -> Result<Vec<Tool>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("tools".to_owned(), what.to_owned());
    let list = match tools {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong("it must be a list")),
    };
    let read = |tool: &Value| {
        if tool.get("type").and_then(Value::as_str) != Some("function") {
            return Err(wrong("'type' must be 'function'"));
        }
        let name = tool.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            return Err(wrong("a function's name must be 1 to 64 letters, digits, dashes or underscores"));
        }
        let parameters = tool.pointer("/function/parameters").cloned().unwrap_or_default();
        Ok(Tool { name: name.to_owned(), parameters })
    };
    list.iter().map(read).collect()
}

/// Reads `tool_choice`.
pub(crate) fn choice(choice: Option<&Value>, tools: &[Tool]) -> Result<Choice, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("tool_choice".to_owned(), what.to_owned());
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(Choice::Auto) };
    if tools.is_empty() {
        return Err(wrong("it is only allowed when 'tools' are given"));
    }
    match choice.as_str() {
        Some("none") => Ok(Choice::None),
        Some("auto") => Ok(Choice::Auto),
        Some("required") => Ok(Choice::Required),
        Some(_) => Err(wrong("it must be none, auto, required or a function")),
        None => {
            let name = choice.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
            let known = tools.iter().any(|tool| tool.name == name);
            if known { Ok(Choice::Named(name.to_owned())) } else { Err(wrong("there is no such function")) }
        }
    }
}

/// Reads `response_format`.
pub(crate) fn format(format: Option<&Value>) -> Result<Format, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("response_format".to_owned(), what.to_owned());
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(Format::Text) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::Json),
        Some("json_schema") => {
            let schema = format.pointer("/json_schema/schema").ok_or_else(|| wrong("it names no schema"))?;
            let name = format.pointer("/json_schema/name").and_then(Value::as_str);
            name.ok_or_else(|| wrong("its schema has no name"))?;
            Ok(Format::Schema(schema.clone()))
        }
        _ => Err(wrong("its type must be text, json_object or json_schema")),
    }
}

/// Reads `embeddings`.
pub(crate) fn embed(
    body: &Map<String, Value>,
    flavour: &Flavour,
    bytes: u64,
    door: &Door<'_>,
) -> Result<Embed, Refusal> {
    only(body, &[&["model", "input", "dimensions", "encoding_format", "user", "request_id"]])?;
    let model = required(body, "model")?.to_owned();
    let row = flavour.embeddings.iter().find(|(name, _)| model.starts_with(name));
    let full = match row {
        Some((_, full)) => *full,
        None if door.credentials.models.contains(&model) => 16,
        None => return Err(Refusal::NoSuchModel(model)),
    };
    let texts = inputs(body)?;
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(Refusal::Invalid(
            "input".to_owned(),
            "it must hold at least one text, none of them empty".to_owned(),
        ));
    }
    if texts.len() > flavour.batch {
        let what = format!("it must hold at most {} texts", flavour.batch);
        return Err(Refusal::Invalid("input".to_owned(), what));
    }
    let dimensions =
        count(body, "dimensions")?.and_then(|wished| usize::try_from(wished).ok()).unwrap_or(full);
    if dimensions > full {
        return Err(Refusal::Invalid("dimensions".to_owned(), format!("it must be at most {full}")));
    }
    let base64 = match body.get("encoding_format").and_then(Value::as_str) {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(Refusal::Invalid(
                "encoding_format".to_owned(),
                "it must be float or base64".to_owned(),
            ));
        }
    };
    Ok(Embed { model, texts, dimensions, base64, bytes })
}

/// Texts, or token ids as the text of their numbers.
fn inputs(body: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let Some(Value::Array(list)) = body.get("input") else { return texts(body, "input") };
    if !list.is_empty() && list.iter().all(Value::is_u64) {
        return Ok(vec![Value::from(list.clone()).to_string()]);
    }
    let of = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Array(ids) if !ids.is_empty() && ids.iter().all(Value::is_u64) => Ok(item.to_string()),
        _ => Err(Refusal::Invalid("input".to_owned(), "it must hold texts or lists of token ids".to_owned())),
    };
    list.iter().map(of).collect()
}
