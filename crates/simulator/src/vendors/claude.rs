//! Anthropic's Messages API.
//!
//! Written from <https://docs.anthropic.com/en/api/messages>, <https://docs.anthropic.com/en/docs/build-with-claude/streaming>
//! and `anthropic` 2.12.0.

use serde_json::{Map, Value, json};

use crate::http::{Request, Whole};
use crate::model::{self, Answer, Chat, Choice, Embed, Finish, Said, Tool, Turn};
use crate::protocol::{
    Door, Frame, Job, Protocol, Reply, count, flag, known_model, number, object, only, required, texts,
};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

const FIELDS: &[&str] = &[
    "model",
    "max_tokens",
    "messages",
    "system",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "tools",
    "tool_choice",
    "thinking",
    "service_tier",
    "container",
    "output_config",
];

/// What a hidden block of thinking holds.
const HIDDEN: &str = "redacted_thinking";

/// The vendor.
pub(crate) struct Claude;

impl Protocol for Claude {
    fn base(&self) -> &'static str {
        ""
    }

    fn id(&self, number: u64) -> String {
        format!("req_{number:022}")
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        let key = request.header("x-api-key").or_else(|| request.bearer()).ok_or(Refusal::NoCredential)?;
        door.credentials.opens(key)?;
        if request.method != "POST" {
            return Err(Refusal::NoSuchPath);
        }
        if request.header("anthropic-version").is_none() {
            return Err(Refusal::Missing("anthropic-version".to_owned()));
        }
        let bytes = request.body.len() as u64;
        match request.path.as_str() {
            "/v1/messages" => chat(&object(request)?, bytes, door).map(|chat| Job::Chat(Box::new(chat))),
            "/v1/messages/count_tokens" => {
                let mut body = object(request)?;
                body.insert("max_tokens".to_owned(), 1_000_000.into());
                let tokens = model::prompt_tokens(&chat(&body, bytes, door)?);
                Ok(Job::Free(Whole::json(200, &json!({ "input_tokens": tokens }))))
            }
            _ => Err(Refusal::NoSuchPath),
        }
    }

    fn refuse(&self, refusal: &Refusal, _request: &Request, id: &str) -> Whole {
        let (status, mut body) = error(refusal);
        body["request_id"] = id.into();
        Whole::json(status, &body).with("request-id", id)
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        let empty = Said {
            reasoning: Vec::new(),
            text: Vec::new(),
            calls: Vec::new(),
            finish: Finish::Stop,
            stop: None,
        };
        let said = answer.choices.first().unwrap_or(&empty);
        let head = ("request-id".to_owned(), answer.id.clone());
        if chat.stream {
            return Reply::Events(vec![head], events(chat, answer, said));
        }
        let mut content = Vec::new();
        if let Some(data) = hidden(chat) {
            content.push(json!({ "type": "redacted_thinking", "data": data }));
        }
        if !said.reasoning.is_empty() {
            let thinking = said.reasoning.concat();
            let signature = model::seal(&thinking);
            content.push(json!({ "type": "thinking", "thinking": thinking, "signature": signature }));
        }
        if !said.text.is_empty() {
            content.push(json!({ "type": "text", "text": said.text.concat() }));
        }
        for call in &said.calls {
            let input: Value = serde_json::from_str(&call.arguments.concat()).unwrap_or_default();
            content.push(json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input }));
        }
        let mut body = message(chat, answer);
        body["content"] = content.into();
        body["stop_reason"] = stop_reason(said).into();
        body["stop_sequence"] = json!(said.stop);
        if let Some(shown) = answer.shown {
            body["usage"] = usage(shown, shown.completion);
        }
        Reply::Whole(Whole::json(200, &body).with("request-id", answer.id.clone()))
    }

    fn embedded(&self, _embed: &Embed, _vectors: &[Vec<f32>], _shown: Option<Tokens>, id: &str) -> Whole {
        // It makes none: no request is read as one for vectors.
        Whole::json(404, &error(&Refusal::NoSuchPath).1).with("request-id", id)
    }

    fn stream_error(&self, _chat: &Chat, _id: &str) -> Frame {
        let body =
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
        Frame::named("error", &body, false)
    }
}

fn message(chat: &Chat, answer: &Answer) -> Value {
    let id = answer.id.replace("req_", "msg_");
    json!({
        "id": id, "type": "message", "role": "assistant", "model": chat.model, "content": [], "stop_reason": null,
        "stop_sequence": null,
    })
}

/// Cached tokens are not among the input tokens here.
fn usage(shown: Tokens, output: u64) -> Value {
    json!({
        "input_tokens": shown.prompt - shown.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": shown.cached,
        "output_tokens": output,
    })
}

/// Asked to, a model that thinks hides a block of it.
fn hidden(chat: &Chat) -> Option<String> {
    let asked = chat.thinking && model::last_text(chat).contains("hide your thoughts");
    asked.then(|| model::seal(HIDDEN))
}

fn stop_reason(said: &Said) -> &'static str {
    match said.finish {
        Finish::Stop if said.stop.is_some() => "stop_sequence",
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter => "refusal",
    }
}

fn events(chat: &Chat, answer: &Answer, said: &Said) -> Vec<Frame> {
    let mut start = message(chat, answer);
    if let Some(shown) = answer.shown {
        start["usage"] = usage(shown, shown.completion.min(1));
    }
    let mut frames =
        vec![Frame::named("message_start", &json!({ "type": "message_start", "message": start }), false)];
    let mut index = 0;
    let mut block = |first: Value, deltas: Vec<Value>| {
        let start = json!({ "type": "content_block_start", "index": index, "content_block": first });
        frames.push(Frame::named("content_block_start", &start, false));
        if index == 0 {
            frames.push(Frame::named("ping", &json!({ "type": "ping" }), false));
        }
        for delta in deltas {
            let delta = json!({ "type": "content_block_delta", "index": index, "delta": delta });
            frames.push(Frame::named("content_block_delta", &delta, true));
        }
        let stop = json!({ "type": "content_block_stop", "index": index });
        frames.push(Frame::named("content_block_stop", &stop, false));
        index += 1;
    };
    if let Some(data) = hidden(chat) {
        block(json!({ "type": "redacted_thinking", "data": data }), Vec::new());
    }
    if !said.reasoning.is_empty() {
        let pieces =
            said.reasoning.iter().map(|piece| json!({ "type": "thinking_delta", "thinking": piece }));
        let signed = json!({ "type": "signature_delta", "signature": model::seal(&said.reasoning.concat()) });
        let first = json!({ "type": "thinking", "thinking": "", "signature": "" });
        block(first, pieces.chain(std::iter::once(signed)).collect());
    }
    if !said.text.is_empty() || said.calls.is_empty() {
        let pieces = said.text.iter().map(|piece| json!({ "type": "text_delta", "text": piece })).collect();
        block(json!({ "type": "text", "text": "" }), pieces);
    }
    for call in &said.calls {
        let pieces =
            call.arguments.iter().map(|piece| json!({ "type": "input_json_delta", "partial_json": piece }));
        block(json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": {} }), pieces.collect());
    }
    let mut delta = json!({
        "type": "message_delta",
        "delta": { "stop_reason": stop_reason(said), "stop_sequence": said.stop },
    });
    if let Some(shown) = answer.shown {
        delta["usage"] = json!({ "output_tokens": shown.completion });
    }
    frames.push(Frame::named("message_delta", &delta, false));
    frames.push(Frame::named("message_stop", &json!({ "type": "message_stop" }), false));
    frames
}

fn chat(body: &Map<String, Value>, bytes: u64, door: &Door<'_>) -> Result<Chat, Refusal> {
    only(body, &[FIELDS])?;
    let model = required(body, "model")?.to_owned();
    known_model(&model, &["claude-"], &door.credentials.models)?;
    let max_tokens = count(body, "max_tokens")?.ok_or_else(|| Refusal::Missing("max_tokens".to_owned()))?;
    number(body, "temperature", 0.0, 1.0)?;
    number(body, "top_p", 0.0, 1.0)?;
    let tools = tools(body.get("tools"))?;
    let mut turns = Vec::new();
    if let Some(system) = body.get("system").filter(|system| !system.is_null()) {
        turns.push(Turn { role: "system".to_owned(), ..content(system)? });
    }
    turns.extend(messages(body.get("messages"))?);
    let thinking = thinking(body.get("thinking"), max_tokens)?;
    thoughts(body.get("messages"), thinking)?;
    Ok(Chat {
        thinking,
        choice: choice(body.get("tool_choice"), &tools)?,
        tools,
        turns,
        stream: flag(body, "stream")?,
        max_tokens: Some(max_tokens),
        n: 1,
        stop: texts(body, "stop_sequences")?,
        bytes,
        model,
        ..Chat::default()
    })
}

fn thinking(thinking: Option<&Value>, max_tokens: u64) -> Result<bool, Refusal> {
    let wrong = |what: &str| Err(Refusal::Invalid("thinking".to_owned(), what.to_owned()));
    let Some(thinking) = thinking.filter(|thinking| !thinking.is_null()) else { return Ok(false) };
    match thinking["type"].as_str() {
        Some("disabled") => Ok(false),
        Some("adaptive") => Ok(true),
        Some("enabled") => match thinking["budget_tokens"].as_u64() {
            Some(budget) if budget >= 1024 && budget < max_tokens => Ok(true),
            _ => wrong("budget_tokens must be at least 1024 and less than max_tokens"),
        },
        _ => wrong("its type must be enabled, adaptive or disabled"),
    }
}

fn messages(messages: Option<&Value>) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    let list = messages.and_then(Value::as_array).ok_or_else(|| Refusal::Missing("messages".to_owned()))?;
    if list.is_empty() {
        return Err(wrong("at least one message is required"));
    }
    let mut turns = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    for message in list {
        let role = message["role"].as_str().unwrap_or_default();
        if !["user", "assistant"].contains(&role) {
            return Err(wrong("role must be user or assistant"));
        }
        if turns.is_empty() && role != "user" {
            return Err(wrong("first message must use the \"user\" role"));
        }
        let mut turn = content(&message["content"])?;
        let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let results: Vec<&str> = blocks.iter().filter_map(|block| block["tool_use_id"].as_str()).collect();
        if open.iter().any(|id| !results.contains(id)) || results.iter().any(|id| !open.contains(id)) {
            return Err(wrong("every tool_use block must have its tool_result block in the next message"));
        }
        open = blocks
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .filter_map(|block| block["id"].as_str())
            .collect();
        role.clone_into(&mut turn.role);
        if !results.is_empty() {
            "tool".clone_into(&mut turn.role);
        }
        turns.push(turn);
    }
    Ok(turns)
}

/// Thinking comes back as it was given, and while the model thinks a call comes back behind the thought that led to it.
///
/// <https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking>, "Preserving thinking blocks".
fn thoughts(messages: Option<&Value>, thinking: bool) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(Refusal::Invalid("messages".to_owned(), what.to_owned()));
    let list = messages.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let blocks = |message: &Value| message["content"].as_array().cloned().unwrap_or_default();
    for block in list.iter().flat_map(blocks) {
        let right = match block["type"].as_str() {
            Some("thinking") => {
                let thinking = block["thinking"].as_str().unwrap_or_default();
                block["signature"].as_str() == Some(model::seal(thinking).as_str())
            }
            Some("redacted_thinking") => block["data"].as_str() == Some(model::seal(HIDDEN).as_str()),
            _ => true,
        };
        if !right {
            return wrong("Invalid `signature` in `thinking` block");
        }
    }
    let last =
        list.iter().rev().find(|message| message["role"] == "assistant").map(blocks).unwrap_or_default();
    let calls = last.iter().any(|block| block["type"] == "tool_use");
    let thought = last.first().and_then(|block| block["type"].as_str());
    if thinking && calls && !matches!(thought, Some("thinking" | "redacted_thinking")) {
        return wrong(
            "Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final \
             `assistant` message must start with a thinking block",
        );
    }
    Ok(())
}

/// A text, or blocks.
fn content(content: &Value) -> Result<Turn, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    let mut turn = Turn::default();
    match content {
        Value::String(text) if !text.is_empty() => turn.text.clone_from(text),
        Value::Array(blocks) if !blocks.is_empty() => {
            for block in blocks {
                match block["type"].as_str() {
                    Some("text") => match block["text"].as_str().filter(|text| !text.is_empty()) {
                        Some(text) => turn.text.push_str(text),
                        None => return Err(wrong("text content blocks must be non-empty")),
                    },
                    Some("image") => match block["source"]["type"].as_str() {
                        Some("base64") if block["source"]["media_type"].is_string() => turn.images += 1,
                        Some("url") if block["source"]["url"].is_string() => turn.images += 1,
                        _ => return Err(wrong("image.source must be base64 with a media_type, or url")),
                    },
                    Some("tool_use") if block["input"].is_object() => {
                        turn.text.push_str(&block["input"].to_string());
                    }
                    Some("tool_result") => match &block["content"] {
                        Value::String(text) => turn.text.push_str(text),
                        Value::Array(parts) => {
                            parts
                                .iter()
                                .filter_map(|part| part["text"].as_str())
                                .for_each(|text| turn.text.push_str(text));
                        }
                        _ => {}
                    },
                    Some("thinking" | "redacted_thinking") => {}
                    _ => return Err(wrong("a content block of an unknown type")),
                }
            }
        }
        _ => return Err(wrong("content must be non-empty")),
    }
    Ok(turn)
}

fn tools(tools: Option<&Value>) -> Result<Vec<Tool>, Refusal> {
    let list = tools.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |tool: &Value| match (tool["name"].as_str(), &tool["input_schema"]) {
        (Some(name), schema) if schema["type"] == "object" => {
            Ok(Tool { name: name.to_owned(), parameters: schema.clone() })
        }
        _ => Err(Refusal::Invalid(
            "tools".to_owned(),
            "name and input_schema of type object are required".to_owned(),
        )),
    };
    list.iter().map(read).collect()
}

fn choice(choice: Option<&Value>, tools: &[Tool]) -> Result<Choice, Refusal> {
    let wrong = |what: &str| Err(Refusal::Invalid("tool_choice".to_owned(), what.to_owned()));
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(Choice::Auto) };
    match choice["type"].as_str() {
        _ if tools.is_empty() => wrong("tool_choice may only be specified while providing tools"),
        Some("auto") => Ok(Choice::Auto),
        Some("any") => Ok(Choice::Required),
        Some("none") => Ok(Choice::None),
        Some("tool") => {
            match choice["name"].as_str().filter(|name| tools.iter().any(|tool| tool.name == *name)) {
                Some(name) => Ok(Choice::Named(name.to_owned())),
                None => wrong("there is no such tool"),
            }
        }
        _ => wrong("its type must be auto, any, tool or none"),
    }
}

/// <https://docs.anthropic.com/en/api/errors>
fn error(refusal: &Refusal) -> (u16, Value) {
    let (status, kind) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => {
            (401, "authentication_error")
        }
        Refusal::NoSuchPath | Refusal::NoSuchModel(_) => (404, "not_found_error"),
        Refusal::RateLimited => (429, "rate_limit_error"),
        Refusal::Overloaded => (529, "overloaded_error"),
        Refusal::Broken => (500, "api_error"),
        _ => (400, "invalid_request_error"),
    };
    let message = match refusal {
        Refusal::NoCredential | Refusal::BadCredential => "invalid x-api-key".to_owned(),
        Refusal::NoSuchModel(model) => format!("model: {model}"),
        Refusal::Missing(name) => format!("{name}: Field required"),
        Refusal::Invalid(name, what) if what == "unrecognized request argument" => {
            format!("{name}: Extra inputs are not permitted")
        }
        Refusal::Invalid(name, what) => format!("{name}: {what}"),
        Refusal::TooLong => "prompt is too long".to_owned(),
        other => other.sentence(),
    };
    (status, json!({ "type": "error", "error": { "type": kind, "message": message } }))
}
