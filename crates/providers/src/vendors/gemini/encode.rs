//! A request in the words of `generateContent`.

use byzerllm_core::{
    ChatRequest, Error, Message, Part, ResponseFormat, Result, Role, Tool, ToolChoice, call_signature,
};
use serde_json::{Map, Value, json};

use super::OWN_ID;
use crate::dialects::shared::{self, decimal};

/// Parameters of the vendor's own.
pub(super) const EXTRA: &[&str] = &["thinkingConfig", "mediaResolution", "safetySettings", "cachedContent"];
/// The same, of requests for vectors.
pub(super) const EXTRA_EMBEDDING: &[&str] = &["taskType", "title"];

const TAKES: &[&str] = &[
    "n",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "max_tokens",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "tools",
    "tool_choice",
    "json_object",
    "json_schema",
    "images",
];

/// The body of a request.
pub(super) fn body(model: &str, request: &ChatRequest) -> Result<Value> {
    shared::refuse_others("gemini", request, TAKES)?;
    let messages = shared::conversation("gemini", request)?;
    let (system, rest) = shared::split_system(&messages);
    let mut out = Map::new();
    out.insert("contents".to_owned(), contents(model, &rest)?);
    if let Some(system) = system {
        out.insert("systemInstruction".to_owned(), json!({"parts": [{"text": system}]}));
    }
    if !request.tools.is_empty() {
        let declarations: Vec<Value> = request.tools.iter().map(declaration).collect();
        out.insert("tools".to_owned(), json!([{"functionDeclarations": declarations}]));
        if let Some(config) = calling(&request.tool_choice) {
            out.insert("toolConfig".to_owned(), json!({"functionCallingConfig": config}));
        }
    }
    let mut config = generation_config(request)?;
    for (name, value) in &request.extra {
        let place = if matches!(name.as_str(), "thinkingConfig" | "mediaResolution") {
            &mut config
        } else {
            &mut out
        };
        place.insert(name.clone(), value.clone());
    }
    if !config.is_empty() {
        out.insert("generationConfig".to_owned(), Value::Object(config));
    }
    Ok(Value::Object(out))
}

fn generation_config(request: &ChatRequest) -> Result<Map<String, Value>> {
    let s = &request.sampling;
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("temperature", s.temperature.map(decimal));
    put("topP", s.top_p.map(decimal));
    put("topK", s.top_k.filter(|k| *k > 0).map(Value::from));
    put("maxOutputTokens", s.max_tokens.map(Value::from));
    put("candidateCount", (request.n > 1).then(|| json!(request.n)));
    put("stopSequences", s.stop.as_ref().filter(|stop| !stop.is_empty()).map(|stop| json!(stop)));
    put("presencePenalty", s.presence_penalty.filter(|p| *p != 0.0).map(decimal));
    put("frequencyPenalty", s.frequency_penalty.filter(|p| *p != 0.0).map(decimal));
    if let Some(seed) = s.seed {
        let seed = i32::try_from(seed).map_err(|_| {
            Error::invalid("seed", format!("Gemini's seed is at most {}, got {seed}", i32::MAX))
        })?;
        put("seed", Some(json!(seed)));
    }
    match &request.format {
        ResponseFormat::JsonObject => put("responseMimeType", Some(json!("application/json"))),
        ResponseFormat::JsonSchema(schema) => {
            put("responseMimeType", Some(json!("application/json")));
            // `responseSchema` takes a subset of OpenAPI's schemas only.
            put("responseJsonSchema", Some(schema.clone()));
        }
        _ => {}
    }
    Ok(out)
}

fn declaration(tool: &Tool) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(tool.name));
    if let Some(description) = &tool.description {
        out.insert("description".to_owned(), json!(description));
    }
    if let Some(parameters) = &tool.parameters {
        out.insert("parametersJsonSchema".to_owned(), parameters.clone());
    }
    Value::Object(out)
}

fn calling(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!({"mode": "NONE"})),
        ToolChoice::Required => Some(json!({"mode": "ANY"})),
        ToolChoice::Named(name) => Some(json!({"mode": "ANY", "allowedFunctionNames": [name]})),
    }
}

/// The conversation as turns of user and model: neighbours of one role are one turn, results of tools are the user's.
fn contents(model: &str, messages: &[&Message]) -> Result<Value> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for (position, message) in messages.iter().enumerate() {
        let (role, parts) = match message.role {
            Role::Assistant => ("model", spoken(model, message)?),
            Role::Tool => ("user", vec![result(message, &messages[..position])?]),
            Role::User | Role::System => ("user", pieces(message)?),
        };
        match turns.last_mut() {
            Some((before, all)) if *before == role => all.extend(parts),
            _ => turns.push((role, parts)),
        }
    }
    turns.retain(|(_, parts)| !parts.is_empty());
    if turns.is_empty() {
        return Err(Error::invalid(
            "messages",
            "messages holds nothing for Gemini to answer: add a user message",
        ));
    }
    Ok(turns.into_iter().map(|(role, parts)| json!({"role": role, "parts": parts})).collect())
}

fn pieces(message: &Message) -> Result<Vec<Value>> {
    let mut pieces = Vec::new();
    for part in shared::parts(message).iter() {
        match part {
            Part::Text { text } if text.is_empty() => {}
            Part::Text { text } => pieces.push(json!({"text": text})),
            Part::Image { url, .. } => pieces.push(match shared::data_url(url)? {
                Some((media, data)) => json!({"inlineData": {"mimeType": media, "data": data}}),
                None => match media_type(url) {
                    Some(media) => json!({"fileData": {"mimeType": media, "fileUri": url}}),
                    None => json!({"fileData": {"fileUri": url}}),
                },
            }),
        }
    }
    Ok(pieces)
}

/// What the end of an address says about its picture.
fn media_type(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match path.rsplit_once('.')?.1 {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "heic" => Some("image/heic"),
        "heif" => Some("image/heif"),
        _ => None,
    }
}

fn spoken(model: &str, message: &Message) -> Result<Vec<Value>> {
    let mut all = pieces(message)?;
    let given = message.extra.get("tool_calls").and_then(Value::as_array);
    for (position, call) in shared::calls(message)?.iter().enumerate() {
        let mut function = json!({"name": call.name, "args": call.arguments.as_ref()});
        if !call.id.is_empty() && !call.id.starts_with(OWN_ID) {
            function["id"] = json!(call.id);
        }
        let mut part = json!({"functionCall": function});
        let signature = given.and_then(|calls| calls.get(position)).and_then(call_signature);
        match signature {
            Some(signature) => part["thoughtSignature"] = json!(signature),
            // These models want the signature of the first call of a turn; this word stands for one that was not kept.
            None if position == 0 && model.contains("gemini-3") => {
                part["thoughtSignature"] = json!("skip_thought_signature_validator");
            }
            None => {}
        }
        all.push(part);
    }
    Ok(all)
}

fn result(message: &Message, before: &[&Message]) -> Result<Value> {
    let response = match serde_json::from_str::<Value>(&message.content) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => json!({"result": message.content}),
    };
    let mut function = json!({"name": shared::function_of(message, before)?, "response": response});
    if let Some(id) = shared::extra(message, "tool_call_id").filter(|id| !id.starts_with(OWN_ID)) {
        function["id"] = json!(id);
    }
    Ok(json!({"functionResponse": function}))
}
