//! A request in the words of the Messages API.

use byzerllm_core::{
    ChatRequest, Error, Message, Part, ResponseFormat, Result, Role, THINKING_BLOCKS, Tool, ToolChoice,
};
use serde_json::{Map, Value, json};

use crate::dialects::shared::{self, decimal};

/// Parameters of the vendor's own.
pub(super) const EXTRA: &[&str] =
    &["thinking", "output_config", "metadata", "service_tier", "cache_control", "inference_geo"];

const TAKES: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "strict",
    "json_schema",
    "images",
];

/// The body of a request.
pub(super) fn body(model: &str, max_tokens: u32, request: &ChatRequest) -> Result<Value> {
    shared::refuse_others("claude", request, TAKES)?;
    let messages = shared::conversation("claude", request)?;
    let (system, rest) = shared::split_system(&messages);
    let s = &request.sampling;
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("model", Some(json!(model)));
    put("max_tokens", Some(json!(s.max_tokens.unwrap_or(max_tokens))));
    put("messages", Some(turns(&rest)?));
    put("system", system.map(Value::from));
    put("stream", (!request.whole).then(|| json!(true)));
    put("stop_sequences", s.stop.as_ref().filter(|stop| !stop.is_empty()).map(|stop| json!(stop)));
    // 1 is the API's own value of both. Newer models take one of them only.
    put("temperature", temperature(request)?);
    put("top_p", s.top_p.filter(|p| *p < 1.0).map(decimal));
    put("top_k", s.top_k.filter(|k| *k > 0).map(Value::from));
    if !request.tools.is_empty() {
        put("tools", Some(request.tools.iter().map(tool).collect()));
        put("tool_choice", tool_choice(request));
    }
    for (name, value) in &request.extra {
        put(name, Some(value.clone()));
    }
    if let ResponseFormat::JsonSchema(schema) = &request.format {
        let config = out.entry("output_config").or_insert_with(|| json!({}));
        let config = config.as_object_mut();
        let config =
            config.ok_or_else(|| Error::invalid("output_config", "output_config must be an object"))?;
        config.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
    }
    Ok(Value::Object(out))
}

fn temperature(request: &ChatRequest) -> Result<Option<Value>> {
    match request.sampling.temperature {
        Some(temperature) if temperature > 1.0 => {
            let message = format!("Claude's temperature is between 0 and 1, got {temperature}");
            Err(Error::invalid("temperature", message))
        }
        temperature => Ok(temperature.filter(|temperature| *temperature < 1.0).map(decimal)),
    }
}

fn tool(tool: &Tool) -> Value {
    let any = || json!({"type": "object", "properties": {}});
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(tool.name));
    if let Some(description) = &tool.description {
        out.insert("description".to_owned(), json!(description));
    }
    out.insert("input_schema".to_owned(), tool.parameters.clone().unwrap_or_else(any));
    if tool.strict {
        out.insert("strict".to_owned(), json!(true));
    }
    Value::Object(out)
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    let mut choice = match &request.tool_choice {
        ToolChoice::Auto if request.parallel_tool_calls => return None,
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => return Some(json!({"type": "none"})),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if !request.parallel_tool_calls {
        choice["disable_parallel_tool_use"] = json!(true);
    }
    Some(choice)
}

/// The conversation as turns of user and assistant: neighbours of one role are one turn, results of tools belong to the
/// user's.
fn turns(messages: &[&Message]) -> Result<Value> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for (position, message) in messages.iter().enumerate() {
        let last = position + 1 == messages.len();
        let (role, blocks) = match message.role {
            Role::Assistant => ("assistant", assistant(message, last)?),
            Role::Tool => ("user", vec![tool_result(message)?]),
            Role::User | Role::System => ("user", blocks(message)?),
        };
        match turns.last_mut() {
            Some((before, all)) if *before == role => all.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    turns.retain(|(_, blocks)| !blocks.is_empty());
    if turns.is_empty() {
        return Err(Error::invalid(
            "messages",
            "messages holds nothing for Claude to answer: add a user message",
        ));
    }
    Ok(turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
}

/// Text and pictures; the API takes no empty text.
fn blocks(message: &Message) -> Result<Vec<Value>> {
    let mut blocks = Vec::new();
    for part in shared::parts(message).iter() {
        match part {
            Part::Text { text } if text.trim().is_empty() => {}
            Part::Text { text } => blocks.push(json!({"type": "text", "text": text})),
            Part::Image { url, .. } => {
                let source = match shared::data_url(url)? {
                    Some((media, data)) => json!({"type": "base64", "media_type": media, "data": data}),
                    None => json!({"type": "url", "url": url}),
                };
                blocks.push(json!({"type": "image", "source": source}));
            }
        }
    }
    Ok(blocks)
}

fn assistant(message: &Message, last: bool) -> Result<Vec<Value>> {
    // Thinking can only be handed back with its signature, as the API gave it.
    let thinking = message.extra.get(THINKING_BLOCKS).and_then(Value::as_array);
    let mut all: Vec<Value> = thinking.cloned().unwrap_or_default();
    let mut text = blocks(message)?;
    let calls = shared::calls(message)?;
    // A last message of the assistant is the beginning of the answer, which the API wants without space at its end.
    if last
        && calls.is_empty()
        && let Some(Value::String(text)) = text.last_mut().and_then(|block| block.get_mut("text"))
    {
        text.truncate(text.trim_end().len());
    }
    all.append(&mut text);
    for call in calls {
        let arguments = call.arguments.as_ref();
        all.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}));
    }
    Ok(all)
}

fn tool_result(message: &Message) -> Result<Value> {
    let id = shared::extra(message, "tool_call_id").ok_or_else(|| {
        Error::invalid("messages", "a tool message needs the tool_call_id of the call it answers")
    })?;
    let content =
        if message.parts.is_empty() { json!(message.content) } else { Value::Array(blocks(message)?) };
    Ok(json!({"type": "tool_result", "tool_use_id": id, "content": content}))
}
