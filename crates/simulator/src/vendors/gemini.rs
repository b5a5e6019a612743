//! Google's Gemini API.
//!
//! Written from <https://ai.google.dev/api/generate-content>, <https://ai.google.dev/api/embeddings> and `google-genai` 3.4.0.

use serde_json::{Map, Value, json};

use crate::http::{Request, Whole};
use crate::model::{self, Answer, Chat, Choice, Embed, Finish, Format, Said, Tool, Turn};
use crate::protocol::{Door, Frame, Job, Protocol, Reply, count, known_model, number, object, texts};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

/// Fields of a request, as JSON has them; the protocol takes them with underscores, too.
const FIELDS: &[&str] = &[
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "cachedContent",
    "model",
];

/// The vendor.
pub(crate) struct Gemini;

impl Protocol for Gemini {
    fn base(&self) -> &'static str {
        "/v1beta"
    }

    fn id(&self, number: u64) -> String {
        format!("gemini-{number:016}")
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        let key = request
            .header("x-goog-api-key")
            .or_else(|| request.parameter("key"))
            .ok_or(Refusal::NoCredential)?;
        door.credentials.opens(key)?;
        let path =
            request.path.strip_prefix("/v1beta/models/").or_else(|| request.path.strip_prefix("/v1/models/"));
        let (model, method) = path.and_then(|rest| rest.split_once(':')).ok_or(Refusal::NoSuchPath)?;
        if request.method != "POST" {
            return Err(Refusal::NoSuchPath);
        }
        let body = camel(&object(request)?);
        let bytes = request.body.len() as u64;
        let beginnings: &[&str] = if method.contains("mbedContent") {
            &["gemini-embedding-", "text-embedding-", "embedding-"]
        } else {
            &["gemini-"]
        };
        known_model(model, beginnings, &door.credentials.models)?;
        match method {
            "generateContent" | "streamGenerateContent" => {
                signatures(&body, model)?;
                let mut chat = chat(&body, bytes)?;
                chat.stream = method == "streamGenerateContent";
                chat.wish.array = chat.stream && request.parameter("alt") != Some("sse");
                model.clone_into(&mut chat.model);
                Ok(Job::Chat(Box::new(chat)))
            }
            "countTokens" => {
                let inner = body.get("generateContentRequest").and_then(Value::as_object).unwrap_or(&body);
                let tokens = model::prompt_tokens(&chat(inner, bytes)?);
                Ok(Job::Free(Whole::json(200, &json!({ "totalTokens": tokens }))))
            }
            "batchEmbedContents" => vectors(&body, model, bytes).map(Job::Embed),
            "embedContent" => {
                let mut embed =
                    vectors(&[("requests".to_owned(), json!([body]))].into_iter().collect(), model, bytes)?;
                // One vector, not a list of one.
                embed.base64 = true;
                Ok(Job::Embed(embed))
            }
            _ => Err(Refusal::NoSuchPath),
        }
    }

    fn refuse(&self, refusal: &Refusal, _request: &Request, _id: &str) -> Whole {
        let (status, body) = error(refusal);
        Whole::json(status, &body)
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        let chunks = if chat.stream { chunks(chat, answer) } else { vec![whole(chat, answer)] };
        if !chat.stream {
            return Reply::Whole(Whole::json(200, chunks.first().unwrap_or(&Value::Null)));
        }
        if chat.wish.array {
            return Reply::Whole(Whole::json(200, &chunks.into()));
        }
        let last = chunks.len() - 1;
        let frames =
            chunks.iter().enumerate().map(|(index, chunk)| Frame::new(chunk, index < last)).collect();
        Reply::Events(Vec::new(), frames)
    }

    fn embedded(&self, embed: &Embed, vectors: &[Vec<f32>], _shown: Option<Tokens>, _id: &str) -> Whole {
        // What vectors cost is not said.
        let rows: Vec<Value> = vectors.iter().map(|vector| json!({ "values": vector })).collect();
        let body =
            if embed.base64 { json!({ "embedding": rows.first() }) } else { json!({ "embeddings": rows }) };
        Whole::json(200, &body)
    }

    fn stream_error(&self, _chat: &Chat, _id: &str) -> Frame {
        Frame::new(&error(&Refusal::Overloaded).1, false)
    }
}

/// Names with underscores become names as JSON has them.
fn camel(body: &Map<String, Value>) -> Map<String, Value> {
    let name = |name: &str| {
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |mut whole, part| {
            let mut letters = part.chars();
            whole.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
            whole.push_str(letters.as_str());
            whole
        })
    };
    body.iter().map(|(key, value)| (name(key), value.clone())).collect()
}

fn usage(shown: Tokens, candidates: u64) -> Value {
    let mut usage = json!({ "promptTokenCount": shown.prompt, "candidatesTokenCount": candidates });
    if shown.cached > 0 {
        usage["cachedContentTokenCount"] = shown.cached.into();
    }
    if shown.reasoning > 0 {
        usage["thoughtsTokenCount"] = shown.reasoning.into();
    }
    usage["totalTokenCount"] = (shown.prompt + candidates + shown.reasoning).into();
    usage
}

fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "MAX_TOKENS",
        Finish::ContentFilter => "SAFETY",
        Finish::Stop | Finish::ToolCalls => "STOP",
    }
}

/// The first call of a turn is signed.
fn calls(said: &Said) -> Vec<Value> {
    let read = |arguments: &[String]| serde_json::from_str::<Value>(&arguments.concat()).unwrap_or_default();
    let part =
        |call: &model::Call| json!({ "functionCall": { "name": call.name, "args": read(&call.arguments) } });
    let mut parts: Vec<Value> = said.calls.iter().map(part).collect();
    if let Some(first) = parts.first_mut() {
        first["thoughtSignature"] = seal(&first["functionCall"]).into();
    }
    parts
}

fn seal(call: &Value) -> String {
    model::seal(&format!("{}{}", call["name"], call["args"]))
}

/// <https://ai.google.dev/gemini-api/docs/thought-signatures>: Gemini 3 wants the signature of the first call of each step
/// of the turn back; a word of the vendor's stands for one that was lost. Other models take none, but no wrong one.
fn signatures(body: &Map<String, Value>, model: &str) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(Refusal::Invalid("contents".to_owned(), what.to_owned()));
    let contents = body.get("contents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for turn in contents {
        let parts = turn["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut calls = parts.iter().filter(|part| part["functionCall"].is_object());
        let Some(first) = calls.next() else { continue };
        match first["thoughtSignature"].as_str() {
            Some("skip_thought_signature_validator") => {}
            Some(signature) if signature == seal(&first["functionCall"]) => {}
            Some(_) => return wrong("Corrupted thought signature."),
            None if model.starts_with("gemini-3") => {
                return wrong("Function call is missing a thought_signature in functionCall parts.");
            }
            None => {}
        }
    }
    Ok(())
}

fn envelope(chat: &Chat, answer: &Answer, candidates: &[Value], sent: u64) -> Value {
    let mut body = json!({ "candidates": candidates });
    if let Some(shown) = answer.shown {
        body["usageMetadata"] = usage(shown, sent);
    }
    body["modelVersion"] = chat.model.clone().into();
    body["responseId"] = answer.id.clone().into();
    body
}

fn whole(chat: &Chat, answer: &Answer) -> Value {
    let candidates: Vec<Value> = (0..)
        .zip(&answer.choices)
        .map(|(index, said)| {
            let mut parts = Vec::new();
            if !said.reasoning.is_empty() {
                parts.push(json!({ "text": said.reasoning.concat(), "thought": true }));
            }
            if !said.text.is_empty() {
                parts.push(json!({ "text": said.text.concat() }));
            }
            parts.extend(calls(said));
            candidate(index, &parts, Some(said.finish))
        })
        .collect();
    let sent = answer.shown.map_or(0, |shown| shown.completion - shown.reasoning);
    envelope(chat, answer, &candidates, sent)
}

fn candidate(index: u32, parts: &[Value], finish: Option<Finish>) -> Value {
    let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": index });
    if let Some(finish) = finish {
        candidate["finishReason"] = finish_word(finish).into();
    }
    candidate
}

fn chunks(chat: &Chat, answer: &Answer) -> Vec<Value> {
    let mut chunks = Vec::new();
    let total = answer.shown.map_or(0, |shown| shown.completion - shown.reasoning);
    let last = answer.choices.len();
    for (index, said) in (0..).zip(&answer.choices) {
        let thoughts = said.reasoning.iter().map(|piece| json!({ "text": piece, "thought": true }));
        let texts = said.text.iter().map(|piece| json!({ "text": piece }));
        let parts: Vec<Value> = thoughts.chain(texts).chain(calls(said)).collect();
        let steps = parts.len().max(1) as u64;
        for (number, part) in (1..).zip(parts) {
            let sent = total * number / steps;
            chunks.push(envelope(chat, answer, &[candidate(index, &[part], None)], sent));
        }
        let ends = index as usize + 1 == last;
        let sent = if ends { total } else { 0 };
        let end = candidate(index, &[json!({ "text": "" })], Some(said.finish));
        chunks.push(envelope(chat, answer, &[end], sent));
    }
    chunks
}

fn chat(body: &Map<String, Value>, bytes: u64) -> Result<Chat, Refusal> {
    if let Some(stranger) = body.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(Refusal::Invalid(stranger.clone(), "Cannot find field".to_owned()));
    }
    let empty = Map::new();
    let config =
        body.get("generationConfig").and_then(Value::as_object).map(camel).unwrap_or_else(|| empty.clone());
    number(&config, "temperature", 0.0, 2.0)?;
    number(&config, "topP", 0.0, 1.0)?;
    let tools = tools(body.get("tools"))?;
    let mut turns = Vec::new();
    if let Some(system) = body.get("systemInstruction").filter(|system| !system.is_null()) {
        turns.push(Turn { role: "system".to_owned(), ..content(system)? });
    }
    turns.extend(contents(body.get("contents"))?);
    let format = match (config.get("responseMimeType").and_then(Value::as_str), schema(&config)) {
        (Some("application/json"), Some(schema)) => Format::Schema(schema.clone()),
        (Some("application/json"), None) => Format::Json,
        (_, Some(_)) => {
            let what = "responseMimeType must be application/json when a schema is set".to_owned();
            return Err(Refusal::Invalid("generationConfig.responseSchema".to_owned(), what));
        }
        _ => Format::Text,
    };
    let thinking = config.get("thinkingConfig").and_then(Value::as_object).map(camel);
    let n = count(&config, "candidateCount")?.unwrap_or(1);
    Ok(Chat {
        choice: choice(body.get("toolConfig"), &tools)?,
        tools,
        turns,
        max_tokens: count(&config, "maxOutputTokens")?,
        n: u32::try_from(n).unwrap_or(1).min(8),
        stop: texts(&config, "stopSequences")?,
        thinking: thinking
            .is_some_and(|thinking| thinking.get("includeThoughts") == Some(&Value::Bool(true))),
        format,
        bytes,
        ..Chat::default()
    })
}

fn schema(config: &Map<String, Value>) -> Option<&Value> {
    config
        .get("responseSchema")
        .or_else(|| config.get("responseJsonSchema"))
        .filter(|schema| !schema.is_null())
}

fn contents(contents: Option<&Value>) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("contents".to_owned(), what.to_owned());
    let list = contents.and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("contents is not specified"))?;
    let mut turns: Vec<Turn> = Vec::new();
    for item in list {
        let role = match item["role"].as_str() {
            None | Some("user") => "user",
            Some("model") => "assistant",
            Some("function") => "tool",
            Some(_) => return Err(wrong("Please use a valid role: user, model.")),
        };
        let mut turn = content(item)?;
        let answers = item["parts"]
            .as_array()
            .is_some_and(|parts| parts.iter().any(|part| !part["functionResponse"].is_null()));
        if answers && turns.last().is_none_or(|turn| turn.role != "assistant") {
            return Err(wrong("a function response turn must come immediately after a function call turn"));
        }
        if answers { "tool" } else { role }.clone_into(&mut turn.role);
        turns.push(turn);
    }
    Ok(turns)
}

fn content(content: &Value) -> Result<Turn, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("contents.parts".to_owned(), what.to_owned());
    let mut turn = Turn::default();
    let parts = content["parts"].as_array().filter(|parts| !parts.is_empty());
    for part in parts.ok_or_else(|| wrong("contents.parts must not be empty"))? {
        let part = camel(part.as_object().ok_or_else(|| wrong("a part must be an object"))?);
        let has = |name: &str| part.get(name).is_some_and(|value| !value.is_null());
        if let Some(text) = part.get("text").and_then(Value::as_str) {
            turn.text.push_str(text);
        } else if has("inlineData") || has("fileData") {
            turn.images += 1;
        } else if has("functionCall") {
            turn.text.push_str(&part["functionCall"]["args"].to_string());
        } else if has("functionResponse") {
            turn.text.push_str(&part["functionResponse"]["response"].to_string());
        } else {
            return Err(wrong("a part must have one initialized data field"));
        }
    }
    Ok(turn)
}

fn tools(tools: Option<&Value>) -> Result<Vec<Tool>, Refusal> {
    let mut found = Vec::new();
    for tool in tools.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object).map(camel)
    {
        for function in tool.get("functionDeclarations").and_then(Value::as_array).into_iter().flatten() {
            let function = camel(function.as_object().unwrap_or(&Map::new()));
            let name = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| {
                Refusal::Invalid("tools".to_owned(), "a function without a name".to_owned())
            })?;
            let parameters = function.get("parametersJsonSchema").or_else(|| function.get("parameters"));
            found.push(Tool { name: name.to_owned(), parameters: parameters.cloned().unwrap_or_default() });
        }
    }
    Ok(found)
}

fn choice(config: Option<&Value>, tools: &[Tool]) -> Result<Choice, Refusal> {
    let config = config.and_then(Value::as_object).map(camel).unwrap_or_default();
    let calling =
        config.get("functionCallingConfig").and_then(Value::as_object).map(camel).unwrap_or_default();
    let allowed = calling
        .get("allowedFunctionNames")
        .and_then(Value::as_array)
        .and_then(|names| names.first()?.as_str());
    match calling.get("mode").and_then(Value::as_str) {
        None | Some("AUTO" | "VALIDATED") => Ok(Choice::Auto),
        Some("NONE") => Ok(Choice::None),
        Some("ANY") => match allowed {
            Some(name) if tools.iter().any(|tool| tool.name == name) => Ok(Choice::Named(name.to_owned())),
            Some(_) => Err(Refusal::Invalid("toolConfig".to_owned(), "there is no such function".to_owned())),
            None => Ok(Choice::Required),
        },
        Some(_) => Err(Refusal::Invalid("toolConfig".to_owned(), "an unknown mode".to_owned())),
    }
}

fn vectors(body: &Map<String, Value>, model: &str, bytes: u64) -> Result<Embed, Refusal> {
    let list = body.get("requests").and_then(Value::as_array).filter(|list| (1..=100).contains(&list.len()));
    let list = list.ok_or_else(|| {
        Refusal::Invalid("requests".to_owned(), "at most 100 requests can be in one batch".to_owned())
    })?;
    let mut embed = Embed { model: model.to_owned(), dimensions: 3072, bytes, ..Embed::default() };
    for request in list {
        let request = camel(request.as_object().unwrap_or(&Map::new()));
        if let Some(named) = request.get("model").and_then(Value::as_str)
            && named.strip_prefix("models/") != Some(model)
        {
            return Err(Refusal::Invalid(
                "requests.model".to_owned(),
                "it must be the model of the path".to_owned(),
            ));
        }
        if let Some(wished) =
            count(&request, "outputDimensionality")?.and_then(|wished| usize::try_from(wished).ok())
        {
            embed.dimensions = wished.min(3072);
        }
        embed.texts.push(content(request.get("content").unwrap_or(&Value::Null))?.text);
    }
    Ok(embed)
}

/// <https://ai.google.dev/gemini-api/docs/troubleshooting>
fn error(refusal: &Refusal) -> (u16, Value) {
    let (code, status) = match refusal {
        Refusal::NoCredential => (403, "PERMISSION_DENIED"),
        Refusal::BadCredential | Refusal::ExpiredCredential => (400, "INVALID_ARGUMENT"),
        Refusal::NoSuchPath | Refusal::NoSuchModel(_) => (404, "NOT_FOUND"),
        Refusal::RateLimited => (429, "RESOURCE_EXHAUSTED"),
        Refusal::Overloaded => (503, "UNAVAILABLE"),
        Refusal::Broken => (500, "INTERNAL"),
        // The filter is no error here: the answer has no candidates.
        Refusal::Filtered => return (200, json!({ "promptFeedback": { "blockReason": "SAFETY" } })),
        _ => (400, "INVALID_ARGUMENT"),
    };
    let message = match refusal {
        Refusal::BadCredential => "API key not valid. Please pass a valid API key.".to_owned(),
        Refusal::NoCredential => "Method doesn't allow unregistered callers.".to_owned(),
        Refusal::Invalid(name, what) if what == "Cannot find field" => {
            format!("Invalid JSON payload received. Unknown name \"{name}\": Cannot find field.")
        }
        other => other.sentence(),
    };
    let mut error = json!({ "code": code, "message": message, "status": status });
    if *refusal == Refusal::BadCredential {
        let kind = "type.googleapis.com/google.rpc.ErrorInfo";
        error["details"] =
            json!([{ "@type": kind, "reason": "API_KEY_INVALID", "domain": "googleapis.com" }]);
    }
    (code, json!({ "error": error }))
}
