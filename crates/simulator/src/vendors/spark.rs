//! iFLYTEK's Spark: a WebSocket whose address is signed.
//!
//! Written from <https://www.xfyun.cn/doc/spark/Web.html>, <https://www.xfyun.cn/doc/spark/general_url_authentication.html> and
//! `spark-ai-python` 0.4.5, `llm/llm.py`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Map, Value, json};

use crate::http::{Request, Whole};
use crate::model::{Answer, Chat, Choice, Embed, Said, Tool, Turn};
use crate::protocol::{Door, Frame, Job, Protocol, Reply, count, number, object};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

/// How far the signed date may be from now, in seconds.
const SKEW: u64 = 300;

/// Paths with the domain that each takes.
const DOMAINS: [(&str, &str); 10] = [
    ("/v1.1/chat", "general"),
    ("/v1.1/chat", "lite"),
    ("/v2.1/chat", "generalv2"),
    ("/v3.1/chat", "generalv3"),
    ("/chat/pro-128k", "pro-128k"),
    ("/v3.5/chat", "generalv3.5"),
    ("/chat/max-32k", "max-32k"),
    ("/v4.0/chat", "4.0Ultra"),
    ("/v1/x1", "x1"),
    ("/v2.1/image", "image"),
];

/// The vendor.
pub(crate) struct Spark;

impl Protocol for Spark {
    fn base(&self) -> &'static str {
        ""
    }

    fn id(&self, number: u64) -> String {
        format!("cht000{number:08x}@dx0000000000000000000")
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        if !request.upgrades() || !DOMAINS.iter().any(|(path, _)| *path == request.path) {
            return Err(Refusal::NoSuchPath);
        }
        admit(request, door)?;
        let body = object(request)?;
        chat(&body, request, door).map(|chat| Job::Chat(Box::new(chat)))
    }

    fn refuse(&self, refusal: &Refusal, request: &Request, id: &str) -> Whole {
        // Before the handshake it is HTTP, after it a message with a code.
        if request.body.is_empty() {
            let message = match refusal {
                Refusal::NoCredential => "Unauthorized",
                Refusal::BadCredential => "HMAC signature does not match",
                Refusal::ExpiredCredential => {
                    "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication"
                }
                Refusal::NoSuchPath => "no Route matched with those values",
                _ => "The upstream server failed",
            };
            let status = if *refusal == Refusal::ExpiredCredential { 403 } else { refusal.status() };
            return Whole::json(status, &json!({ "message": message }));
        }
        let (code, message) = error(refusal);
        Whole::json(200, &json!({ "header": { "code": code, "message": message, "sid": id, "status": 2 } }))
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        let frames = answer.choices.first().map(|said| frames(chat, answer, said)).unwrap_or_default();
        Reply::Messages(frames)
    }

    fn embedded(&self, _embed: &Embed, _vectors: &[Vec<f32>], _shown: Option<Tokens>, id: &str) -> Whole {
        Whole::json(404, &json!({ "message": "no Route matched with those values", "sid": id }))
    }

    fn stream_error(&self, _chat: &Chat, id: &str) -> Frame {
        let (code, message) = error(&Refusal::Broken);
        Frame::new(&json!({ "header": { "code": code, "message": message, "sid": id, "status": 2 } }), false)
    }

    fn numbered(&self, _request: &Request) -> bool {
        true
    }

    fn socket(&self) -> bool {
        true
    }
}

/// Checks the signature in the query.
fn admit(request: &Request, door: &Door<'_>) -> Result<(), Refusal> {
    let authorization = request.parameter("authorization").ok_or(Refusal::NoCredential)?;
    let (date, host) = (request.parameter("date"), request.parameter("host"));
    let (Some(date), Some(host)) = (date, host) else { return Err(Refusal::ExpiredCredential) };
    let then = httpdate::parse_http_date(date).map_err(|_| Refusal::ExpiredCredential)?;
    let then = then.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if then.abs_diff(door.now) > SKEW {
        return Err(Refusal::ExpiredCredential);
    }
    let decoded = STANDARD.decode(authorization).map_err(|_| Refusal::BadCredential)?;
    let decoded = String::from_utf8(decoded).map_err(|_| Refusal::BadCredential)?;
    let field = |name: &str| {
        let start = decoded.find(&format!("{name}=\""))? + name.len() + 2;
        decoded[start..].split('"').next()
    };
    let fits = field("api_key") == Some(door.credentials.api_key.as_str())
        && field("algorithm") == Some("hmac-sha256")
        && field("headers") == Some("host date request-line")
        && request.header("host") == Some(host);
    let signature = field("signature").filter(|_| fits).ok_or(Refusal::BadCredential)?;
    let signature = STANDARD.decode(signature).map_err(|_| Refusal::BadCredential)?;
    let text = format!("host: {host}\ndate: {date}\nGET {} HTTP/1.1", request.path);
    let key = hmac::Key::new(hmac::HMAC_SHA256, door.credentials.secret.as_bytes());
    hmac::verify(&key, text.as_bytes(), &signature).map_err(|_| Refusal::BadCredential)
}

fn chat(body: &Map<String, Value>, request: &Request, door: &Door<'_>) -> Result<Chat, Refusal> {
    let missing = |name: &str| Refusal::Missing(name.to_owned());
    let body = Value::Object(body.clone());
    let app =
        body.pointer("/header/app_id").and_then(Value::as_str).ok_or_else(|| missing("header.app_id"))?;
    if app != door.credentials.app_id {
        return Err(Refusal::BadCredential);
    }
    let parameters = body.pointer("/parameter/chat").and_then(Value::as_object);
    let parameters = parameters.ok_or_else(|| missing("parameter.chat"))?;
    let domain =
        parameters.get("domain").and_then(Value::as_str).ok_or_else(|| missing("parameter.chat.domain"))?;
    if !DOMAINS.contains(&(request.path.as_str(), domain))
        && !door.credentials.models.iter().any(|model| model == domain)
    {
        return Err(Refusal::NoSuchModel(domain.to_owned()));
    }
    number(parameters, "temperature", f64::MIN_POSITIVE, 1.0)?;
    number(parameters, "random_threshold", 0.0, 1.0)?;
    number(parameters, "top_k", 1.0, 6.0)?;
    let max_tokens = count(parameters, "max_tokens")?;
    if max_tokens.is_some_and(|tokens| tokens > 32_768) {
        return Err(Refusal::Invalid("max_tokens".to_owned(), "it is more than the model's most".to_owned()));
    }
    let text =
        body.pointer("/payload/message/text").and_then(Value::as_array).filter(|text| !text.is_empty());
    Ok(Chat {
        model: domain.to_owned(),
        turns: turns(text.ok_or_else(|| missing("payload.message.text"))?)?,
        tools: tools(&body),
        choice: Choice::Auto,
        stream: true,
        max_tokens,
        n: 1,
        bytes: request.body.len() as u64,
        ..Chat::default()
    })
}

fn turns(list: &[Value]) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("payload.message.text".to_owned(), what.to_owned());
    let mut turns: Vec<Turn> = Vec::new();
    for (index, message) in list.iter().enumerate() {
        let (role, content) = (message["role"].as_str().unwrap_or_default(), message["content"].as_str());
        let expected =
            turns.last().is_none_or(|last: &Turn| last.role != role) && (role != "system" || index == 0);
        if !["system", "user", "assistant", "tool"].contains(&role) || !expected {
            return Err(wrong("user and assistant must alternate, system comes first"));
        }
        let call =
            message.get("function_call").filter(|call| role == "assistant" && call["name"].is_string());
        let content = content.filter(|content| !content.is_empty() || call.is_some());
        let content = content.ok_or_else(|| wrong("content must not be empty"))?;
        let picture = message["content_type"] == "image";
        let text = if picture { String::new() } else { content.to_owned() };
        turns.push(Turn { role: role.to_owned(), text, images: u64::from(picture) });
    }
    if turns.last().is_none_or(|last| !matches!(last.role.as_str(), "user" | "tool")) {
        return Err(wrong("the last message must be the user's"));
    }
    Ok(turns)
}

fn tools(body: &Value) -> Vec<Tool> {
    let list = body.pointer("/payload/functions/text").and_then(Value::as_array);
    let read = |tool: &Value| {
        Some(Tool { name: tool["name"].as_str()?.to_owned(), parameters: tool["parameters"].clone() })
    };
    list.into_iter().flatten().filter_map(read).collect()
}

fn frames(_chat: &Chat, answer: &Answer, said: &Said) -> Vec<Frame> {
    let mut texts: Vec<Value> = said
        .reasoning
        .iter()
        .map(|piece| json!({ "content": "", "reasoning_content": piece, "role": "assistant", "index": 0 }))
        .collect();
    texts.extend(said.text.iter().map(|piece| json!({ "content": piece, "role": "assistant", "index": 0 })));
    // One call at most, in one piece.
    if let Some(call) = said.calls.first() {
        let function = json!({ "name": call.name, "arguments": call.arguments.concat() });
        texts.push(json!({
            "content": "", "role": "assistant", "content_type": "text", "function_call": function, "index": 0,
        }));
    }
    if texts.is_empty() {
        texts.push(json!({ "content": "", "role": "assistant", "index": 0 }));
    }
    let last = texts.len() - 1;
    let mut frames = Vec::new();
    for (seq, text) in texts.into_iter().enumerate() {
        let status = if seq == last { 2 } else { u8::from(seq > 0) };
        let mut payload = json!({ "choices": { "status": status, "seq": seq, "text": [text] } });
        if let (Some(shown), true) = (answer.shown, seq == last) {
            payload["usage"] = json!({ "text": {
                "question_tokens": shown.prompt, "prompt_tokens": shown.prompt, "completion_tokens": shown.completion,
                "total_tokens": shown.total(),
            } });
        }
        let header = json!({ "code": 0, "message": "Success", "sid": answer.id, "status": status });
        frames.push(Frame::new(&json!({ "header": header, "payload": payload }), true));
    }
    frames
}

/// <https://www.xfyun.cn/doc/spark/%E6%8E%A5%E5%8F%A3%E8%AF%B4%E6%98%8E.html>
fn error(refusal: &Refusal) -> (u32, String) {
    let code = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => 10016,
        Refusal::NoSuchPath | Refusal::NoSuchModel(_) => 10404,
        Refusal::NoJson => 10003,
        Refusal::Missing(_) => 10004,
        Refusal::Invalid(..) => 10005,
        Refusal::TooLong => 10907,
        Refusal::RateLimited => 11202,
        Refusal::Overloaded => 10008,
        Refusal::Broken => 10012,
        Refusal::Filtered => 10013,
    };
    (code, refusal.sentence())
}
