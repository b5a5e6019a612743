//! Baidu's Qianfan: the first API with its token and its paths per model, and the second, which is OpenAI's dialect.
//!
//! Written from <https://cloud.baidu.com/doc/WENXINWORKSHOP/s/Dlkm79mnx>,
//! <https://cloud.baidu.com/doc/qianfan-api/s/3m7of64lb> and `qianfan` 0.4.12.

use serde_json::{Map, Value, json};

use super::flavours;
use super::openai::OpenAi;
use crate::http::{Request, Whole, pairs};
use crate::model::{Answer, Chat, Choice, Embed, Finish, Format, Said, Tool, Turn};
use crate::protocol::{Door, Frame, Job, Protocol, Reply, count, flag, number, object, texts};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

const SHOP: &str = "/rpc/2.0/ai_custom/v1/wenxinworkshop";

/// Models of the first API by the last part of their path; others are named as they are there.
const CHATS: [&str; 14] = [
    "completions",
    "completions_pro",
    "completions_adv_pro",
    "eb-instant",
    "ernie_speed",
    "ernie-speed-128k",
    "ernie-speed-pro-128k",
    "ernie-lite-8k",
    "ernie-lite-pro-128k",
    "ernie-tiny-8k",
    "ernie-char-8k",
    "ernie-3.5-128k",
    "ernie-4.0-turbo-8k",
    "ernie-func-8k",
];

/// Models for vectors by the last part of their path.
const VECTORS: [(&str, usize); 4] =
    [("embedding-v1", 384), ("bge_large_zh", 1024), ("bge_large_en", 1024), ("tao_8k", 1024)];

/// What a token exchange gives.
const TOKEN: &str = "24.simulator-access-token.2592000";

const SECOND: OpenAi = OpenAi { flavour: &flavours::QIANFAN };

/// The vendor.
pub(crate) struct Qianfan;

impl Protocol for Qianfan {
    fn base(&self) -> &'static str {
        ""
    }

    fn id(&self, number: u64) -> String {
        format!("as-{number:010}")
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        if request.path == "/oauth/2.0/token" {
            return Ok(Job::Free(token(request, door)));
        }
        if request.path.starts_with("/v2/") {
            return SECOND.read(request, door);
        }
        let (kind, model) = request
            .path
            .strip_prefix(SHOP)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.split_once('/'))
            .ok_or(Refusal::NoSuchPath)?;
        match request.parameter("access_token") {
            None => return Err(Refusal::NoCredential),
            Some(token) if token != TOKEN => return Err(Refusal::BadCredential),
            Some(_) => {}
        }
        let bytes = request.body.len() as u64;
        let known = door.credentials.models.iter().any(|known| known == model);
        match kind {
            "chat" if known || CHATS.contains(&model) => {
                chat(&object(request)?, model, bytes).map(|chat| Job::Chat(Box::new(chat)))
            }
            "embeddings" => vectors(&object(request)?, model, bytes).map(Job::Embed),
            _ => Err(Refusal::NoSuchModel(model.to_owned())),
        }
    }

    fn refuse(&self, refusal: &Refusal, request: &Request, id: &str) -> Whole {
        if request.path.starts_with("/v2/") {
            return SECOND.refuse(refusal, request, id);
        }
        Whole::json(200, &error(refusal, id))
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        if !chat.wish.first {
            return SECOND.answer(chat, answer);
        }
        let empty = Said {
            reasoning: Vec::new(),
            text: Vec::new(),
            calls: Vec::new(),
            finish: Finish::Stop,
            stop: None,
        };
        let said = answer.choices.first().unwrap_or(&empty);
        if chat.stream {
            Reply::Events(Vec::new(), events(answer, said))
        } else {
            Reply::Whole(Whole::json(200, &whole(answer, said)))
        }
    }

    fn embedded(&self, embed: &Embed, vectors: &[Vec<f32>], shown: Option<Tokens>, id: &str) -> Whole {
        if !VECTORS.iter().any(|(name, _)| *name == embed.model) {
            return SECOND.embedded(embed, vectors, shown, id);
        }
        let rows: Vec<Value> = (0..)
            .zip(vectors)
            .map(|(index, vector)| json!({ "object": "embedding", "embedding": vector, "index": index }))
            .collect();
        let mut body =
            json!({ "id": id, "object": "embedding_list", "created": 1_700_000_000, "data": rows });
        if let Some(shown) = shown {
            body["usage"] = json!({ "prompt_tokens": shown.prompt, "total_tokens": shown.total() });
        }
        Whole::json(200, &body)
    }

    fn stream_error(&self, chat: &Chat, id: &str) -> Frame {
        if chat.wish.first {
            Frame::new(&error(&Refusal::Broken, id), false)
        } else {
            SECOND.stream_error(chat, id)
        }
    }

    fn numbered(&self, request: &Request) -> bool {
        // The first API counts sentences; the second does not, and a repeated piece of text cannot be told there.
        request.path.starts_with(SHOP)
    }
}

/// Key and secret become a token.
fn token(request: &Request, door: &Door<'_>) -> Whole {
    let form = pairs(&request.body);
    let field = |name: &str| {
        let inside = form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        request.parameter(name).or(inside).unwrap_or_default()
    };
    let refused = |status, error: &str, what: &str| {
        Whole::json(status, &json!({ "error": error, "error_description": what }))
    };
    if field("grant_type") != "client_credentials" {
        return refused(400, "unsupported_grant_type", "The authorization grant type is not supported");
    }
    if field("client_id") != door.credentials.api_key {
        return refused(401, "invalid_client", "unknown client id");
    }
    if field("client_secret") != door.credentials.secret {
        return refused(401, "invalid_client", "Client authentication failed");
    }
    let body = json!({
        "access_token": TOKEN, "expires_in": 2_592_000, "refresh_token": "25.simulator", "scope": "public brain_all_scope",
        "session_key": "", "session_secret": "",
    });
    Whole::json(200, &body)
}

fn usage(shown: Tokens) -> Value {
    json!({ "prompt_tokens": shown.prompt, "completion_tokens": shown.completion, "total_tokens": shown.total() })
}

fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "normal",
        Finish::Length => "length",
        Finish::ToolCalls => "function_call",
        Finish::ContentFilter => "content_filter",
    }
}

fn part(answer: &Answer, text: &str) -> Value {
    json!({
        "id": answer.id, "object": "chat.completion", "created": answer.created, "result": text, "is_truncated": false,
        "need_clear_history": false,
    })
}

fn end(body: &mut Value, answer: &Answer, said: &Said) {
    body["finish_reason"] = finish_word(said.finish).into();
    body["is_truncated"] = (said.finish == Finish::Length).into();
    if let Some(call) = said.calls.first() {
        let arguments = call.arguments.concat();
        body["function_call"] = json!({ "name": call.name, "thoughts": "", "arguments": arguments });
    }
    if let Some(shown) = answer.shown {
        body["usage"] = usage(shown);
    }
}

fn whole(answer: &Answer, said: &Said) -> Value {
    let mut body = part(answer, &said.text.concat());
    end(&mut body, answer, said);
    body
}

fn events(answer: &Answer, said: &Said) -> Vec<Frame> {
    let mut frames = Vec::new();
    for piece in &said.text {
        let mut body = part(answer, piece);
        body["sentence_id"] = frames.len().into();
        body["is_end"] = false.into();
        if let Some(shown) = answer.shown {
            body["usage"] = usage(Tokens { completion: 0, ..shown });
        }
        frames.push(Frame::new(&body, true));
    }
    let mut body = part(answer, "");
    body["sentence_id"] = frames.len().into();
    body["is_end"] = true.into();
    end(&mut body, answer, said);
    frames.push(Frame::new(&body, false));
    frames
}

fn chat(body: &Map<String, Value>, model: &str, bytes: u64) -> Result<Chat, Refusal> {
    number(body, "temperature", f64::MIN_POSITIVE, 1.0)?;
    number(body, "top_p", 0.0, 1.0)?;
    number(body, "penalty_score", 1.0, 2.0)?;
    let max_tokens = count(body, "max_output_tokens")?;
    if max_tokens.is_some_and(|tokens| tokens < 2) {
        return Err(Refusal::Invalid("max_output_tokens".to_owned(), "it must be at least 2".to_owned()));
    }
    let stop = texts(body, "stop")?;
    if stop.len() > 4 || stop.iter().any(|stop| stop.chars().count() > 20) {
        return Err(Refusal::Invalid(
            "stop".to_owned(),
            "at most 4 texts of at most 20 characters".to_owned(),
        ));
    }
    let mut turns = Vec::new();
    if let Some(system) = body.get("system").and_then(Value::as_str) {
        turns.push(Turn { role: "system".to_owned(), text: system.to_owned(), images: 0 });
    }
    turns.extend(messages(body.get("messages"))?);
    let tools = body.get("functions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |tool: &Value| {
        Some(Tool { name: tool["name"].as_str()?.to_owned(), parameters: tool["parameters"].clone() })
    };
    let tools: Vec<Tool> = tools.iter().filter_map(read).collect();
    let choice = body.get("tool_choice").and_then(|choice| choice["function"]["name"].as_str());
    let mut chat = Chat {
        model: model.to_owned(),
        turns,
        tools,
        choice: choice.map_or(Choice::Auto, |name| Choice::Named(name.to_owned())),
        stream: flag(body, "stream")?,
        max_tokens,
        n: 1,
        stop,
        format: if body.get("response_format") == Some(&"json_object".into()) {
            Format::Json
        } else {
            Format::Text
        },
        bytes,
        ..Chat::default()
    };
    chat.wish.first = true;
    Ok(chat)
}

/// User and assistant alternate, the user begins and ends; a function's result stands for the user.
fn messages(messages: Option<&Value>) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    let list = messages.and_then(Value::as_array).ok_or_else(|| Refusal::Missing("messages".to_owned()))?;
    if list.len() % 2 == 0 {
        return Err(wrong("the length of messages must be an odd number"));
    }
    let mut turns = Vec::new();
    for (index, message) in list.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        let fits = if index % 2 == 0 { matches!(role, "user" | "function") } else { role == "assistant" };
        if !fits {
            return Err(wrong(
                "the role of message with even index must be assistant, with odd index user or function",
            ));
        }
        let text = message["content"].as_str().unwrap_or_default();
        if text.is_empty() && message.get("function_call").is_none() {
            return Err(wrong("content must not be empty"));
        }
        let role = if role == "function" { "tool" } else { role };
        turns.push(Turn { role: role.to_owned(), text: text.to_owned(), images: 0 });
    }
    Ok(turns)
}

fn vectors(body: &Map<String, Value>, model: &str, bytes: u64) -> Result<Embed, Refusal> {
    let row = VECTORS.iter().find(|(name, _)| *name == model);
    let (_, dimensions) = row.ok_or_else(|| Refusal::NoSuchModel(model.to_owned()))?;
    let Some(Value::Array(_)) = body.get("input") else {
        return Err(Refusal::Invalid("input".to_owned(), "it must be a list of texts".to_owned()));
    };
    let texts = texts(body, "input")?;
    if texts.is_empty() || texts.len() > 16 || texts.iter().any(String::is_empty) {
        return Err(Refusal::Invalid(
            "input".to_owned(),
            "it must hold 1 to 16 texts, none of them empty".to_owned(),
        ));
    }
    Ok(Embed { model: model.to_owned(), texts, dimensions: *dimensions, base64: false, bytes })
}

/// <https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh>: errors come with status 200.
fn error(refusal: &Refusal, id: &str) -> Value {
    let (code, message) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential => {
            (110, "Access token invalid or no longer valid".to_owned())
        }
        Refusal::ExpiredCredential => (111, "Access token expired".to_owned()),
        Refusal::NoSuchPath | Refusal::NoSuchModel(_) => (3, "Unsupported openapi method".to_owned()),
        Refusal::NoJson => (336_002, "invalid json".to_owned()),
        Refusal::RateLimited => (18, "Open api qps request limit reached".to_owned()),
        Refusal::Overloaded => (336_100, "server high load, please try again".to_owned()),
        Refusal::Broken => (336_000, "Internal error".to_owned()),
        Refusal::TooLong => (336_007, "the length of messages is too long".to_owned()),
        Refusal::Filtered => (336_104, "the content was filtered".to_owned()),
        other => (336_003, other.sentence()),
    };
    json!({ "error_code": code, "error_msg": message, "id": id })
}
