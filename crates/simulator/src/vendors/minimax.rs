//! MiniMax: `chatcompletion_pro` with its senders and bots, and `chatcompletion_v2`, which is OpenAI's dialect but for its
//! path, its errors and its last event.
//!
//! Written from <https://platform.minimaxi.com/document/ChatCompletion%20Pro> and
//! <https://platform.minimaxi.com/document/ChatCompletion%20v2>.

use serde_json::{Map, Value, json};

use super::flavours;
use super::openai::OpenAi;
use crate::http::{Request, Whole};
use crate::model::{Answer, Chat, Choice, Embed, Finish, Said, Tool, Turn};
use crate::protocol::{
    Door, Frame, Job, Protocol, Reply, count, flag, known_model, number, object, required, texts,
};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

const PRO: &str = "/v1/text/chatcompletion_pro";
const SECOND: &str = "/v1/text/chatcompletion_v2";
const VECTORS: &str = "/v1/embeddings";

const SECOND_DIALECT: OpenAi = OpenAi { flavour: &flavours::MINIMAX };

/// The vendor.
pub(crate) struct MiniMax;

impl Protocol for MiniMax {
    fn base(&self) -> &'static str {
        "/v1"
    }

    fn id(&self, number: u64) -> String {
        format!("{number:032x}")
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        door.credentials.opens(request.bearer().ok_or(Refusal::NoCredential)?)?;
        let group = || match request.parameter("GroupId") {
            Some(group) if group == door.credentials.app_id => Ok(()),
            _ => Err(Refusal::BadCredential),
        };
        let bytes = request.body.len() as u64;
        match request.path.as_str() {
            SECOND => {
                let path = format!("{}/chat/completions", flavours::MINIMAX.base);
                SECOND_DIALECT.read(&Request { path, ..request.clone() }, door)
            }
            PRO => {
                group()?;
                chat(&object(request)?, bytes, door).map(|chat| Job::Chat(Box::new(chat)))
            }
            VECTORS => {
                group()?;
                vectors(&object(request)?, bytes, door).map(Job::Embed)
            }
            _ => Err(Refusal::NoSuchPath),
        }
    }

    fn refuse(&self, refusal: &Refusal, _request: &Request, id: &str) -> Whole {
        let (status, body) = error(refusal, id);
        Whole::json(status, &body).with("trace-id", id)
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        if chat.wish.pro {
            return pro(chat, answer);
        }
        match SECOND_DIALECT.answer(chat, answer) {
            Reply::Whole(whole) => {
                let mut body: Value = serde_json::from_slice(&whole.body).unwrap_or_default();
                well(&mut body);
                Reply::Whole(Whole { body: body.to_string().into_bytes(), ..whole })
            }
            Reply::Events(head, mut frames) => {
                // Instead of "[DONE]" the whole answer comes again.
                frames.pop();
                if let Reply::Whole(whole) =
                    SECOND_DIALECT.answer(&Chat { stream: false, ..chat.clone() }, answer)
                {
                    let mut body: Value = serde_json::from_slice(&whole.body).unwrap_or_default();
                    well(&mut body);
                    frames.push(Frame::new(&body, false));
                }
                Reply::Events(head, frames)
            }
            messages @ Reply::Messages(_) => messages,
        }
    }

    fn embedded(&self, _embed: &Embed, vectors: &[Vec<f32>], shown: Option<Tokens>, id: &str) -> Whole {
        let mut body = json!({ "vectors": vectors });
        if let Some(shown) = shown {
            body["total_tokens"] = shown.total().into();
        }
        body["base_resp"] = json!({ "status_code": 0, "status_msg": "success" });
        Whole::json(200, &body).with("trace-id", id)
    }

    fn stream_error(&self, _chat: &Chat, id: &str) -> Frame {
        Frame::new(&error(&Refusal::Broken, id).1, false)
    }
}

/// The mark of success.
fn well(body: &mut Value) {
    body["input_sensitive"] = false.into();
    body["output_sensitive"] = false.into();
    body["base_resp"] = json!({ "status_code": 0, "status_msg": "" });
}

fn usage(shown: Tokens) -> Value {
    json!({ "total_tokens": shown.total(), "prompt_tokens": shown.prompt, "completion_tokens": shown.completion })
}

fn bot(chat: &Chat, text: &str, call: Option<(&str, &str)>) -> Value {
    let mut message = json!({ "sender_type": "BOT", "sender_name": chat.bot, "text": text });
    if let Some((name, arguments)) = call {
        message["function_call"] = json!({ "name": name, "arguments": arguments });
    }
    message
}

fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::ContentFilter => "content_filter",
        Finish::Stop | Finish::ToolCalls => "stop",
    }
}

fn pro(chat: &Chat, answer: &Answer) -> Reply {
    let empty =
        Said { reasoning: Vec::new(), text: Vec::new(), calls: Vec::new(), finish: Finish::Stop, stop: None };
    let said = answer.choices.first().unwrap_or(&empty);
    let text = said.text.concat();
    let arguments = said.calls.first().map(|call| call.arguments.concat()).unwrap_or_default();
    let call = said.calls.first().map(|call| (call.name.as_str(), arguments.as_str()));
    let choice = |message: Value, finish: Option<&str>| {
        let mut choice = json!({ "index": 0, "messages": [message] });
        if let Some(finish) = finish {
            choice["finish_reason"] = finish.into();
        }
        choice
    };
    let last = |message: Value| {
        let mut body = json!({
            "id": answer.id, "created": answer.created, "model": chat.model, "reply": text,
            "choices": [choice(message, Some(finish_word(said.finish)))],
        });
        if let Some(shown) = answer.shown {
            body["usage"] = usage(shown);
        }
        well(&mut body);
        body
    };
    let whole = last(bot(chat, &text, call));
    if !chat.stream {
        return Reply::Whole(Whole::json(200, &whole).with("trace-id", answer.id.clone()));
    }
    let piece = |piece: &String| {
        let message = bot(chat, piece, None);
        let body = json!({
            "created": answer.created, "model": chat.model, "reply": "", "choices": [choice(message, None)],
            "request_id": answer.id,
        });
        Frame::new(&body, true)
    };
    let mut frames: Vec<Frame> = said.text.iter().map(piece).collect();
    // The last event holds the whole reply once more.
    frames.push(Frame::new(&whole, false));
    if chat.wish.usage {
        frames.push(Frame { head: String::new(), data: "[DONE]".to_owned(), text: false });
    }
    Reply::Events(vec![("trace-id".to_owned(), answer.id.clone())], frames)
}

fn chat(body: &Map<String, Value>, bytes: u64, door: &Door<'_>) -> Result<Chat, Refusal> {
    let model = required(body, "model")?.to_owned();
    known_model(&model, &["abab", "MiniMax-"], &door.credentials.models)?;
    number(body, "temperature", f64::MIN_POSITIVE, 1.0)?;
    number(body, "top_p", f64::MIN_POSITIVE, 1.0)?;
    let bots = body.get("bot_setting").and_then(Value::as_array).filter(|bots| !bots.is_empty());
    let bots = bots.ok_or_else(|| Refusal::Missing("bot_setting".to_owned()))?;
    let constraints =
        body.get("reply_constraints").ok_or_else(|| Refusal::Missing("reply_constraints".to_owned()))?;
    let name = constraints["sender_name"].as_str().unwrap_or_default();
    if constraints["sender_type"] != "BOT" || !bots.iter().any(|bot| bot["bot_name"] == name) {
        return Err(Refusal::Invalid(
            "reply_constraints".to_owned(),
            "its sender must be a bot of bot_setting".to_owned(),
        ));
    }
    let mut turns = Vec::new();
    for bot in bots {
        let text = bot["content"].as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| {
            Refusal::Invalid("bot_setting".to_owned(), "content must not be empty".to_owned())
        })?;
        turns.push(Turn { role: "system".to_owned(), text: text.to_owned(), images: 0 });
    }
    turns.extend(messages(body)?);
    let tools = body.get("functions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |tool: &Value| {
        Some(Tool { name: tool["name"].as_str()?.to_owned(), parameters: tool["parameters"].clone() })
    };
    let tools: Vec<Tool> = tools.iter().filter_map(read).collect();
    let choice = match body.get("function_call").and_then(|call| call["type"].as_str()) {
        None | Some("auto") => Choice::Auto,
        Some("none") => Choice::None,
        Some("specific") => {
            Choice::Named(body["function_call"]["name"].as_str().unwrap_or_default().to_owned())
        }
        Some(_) => {
            return Err(Refusal::Invalid("function_call".to_owned(), "auto, none or specific".to_owned()));
        }
    };
    let mut chat = Chat {
        turns,
        tools,
        choice,
        stream: flag(body, "stream")?,
        max_tokens: count(body, "tokens_to_generate")?,
        n: 1,
        bytes,
        model,
        bot: name.to_owned(),
        ..Chat::default()
    };
    chat.wish.pro = true;
    chat.wish.usage = flag(body, "use_standard_sse")?;
    Ok(chat)
}

fn messages(body: &Map<String, Value>) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    let list = body.get("messages").and_then(Value::as_array).filter(|list| !list.is_empty());
    let mut turns: Vec<Turn> = Vec::new();
    for message in list.ok_or_else(|| Refusal::Missing("messages".to_owned()))? {
        let role = match message["sender_type"].as_str() {
            Some("USER") => "user",
            Some("BOT") => "assistant",
            Some("FUNCTION") => "tool",
            _ => return Err(wrong("sender_type must be USER, BOT or FUNCTION")),
        };
        let text = message["text"].as_str().ok_or_else(|| wrong("text must be a text"))?;
        if message["sender_name"].as_str().is_none_or(str::is_empty) {
            return Err(wrong("sender_name must not be empty"));
        }
        turns.push(Turn { role: role.to_owned(), text: text.to_owned(), images: 0 });
    }
    if turns.last().is_some_and(|last| last.role == "assistant") {
        return Err(wrong("the last message must not be a bot's"));
    }
    Ok(turns)
}

fn vectors(body: &Map<String, Value>, bytes: u64, door: &Door<'_>) -> Result<Embed, Refusal> {
    let model = required(body, "model")?.to_owned();
    known_model(&model, &["embo-"], &door.credentials.models)?;
    let texts = texts(body, "texts")?;
    if texts.is_empty() || texts.len() > 4096 || texts.iter().any(String::is_empty) {
        return Err(Refusal::Invalid(
            "texts".to_owned(),
            "it must hold 1 to 4096 texts, none of them empty".to_owned(),
        ));
    }
    if !["db", "query"].contains(&required(body, "type")?) {
        return Err(Refusal::Invalid("type".to_owned(), "it must be db or query".to_owned()));
    }
    Ok(Embed { model, texts, dimensions: 1536, base64: false, bytes })
}

/// <https://platform.minimaxi.com/document/error%20code>: errors come with status 200.
pub(crate) fn error(refusal: &Refusal, id: &str) -> (u16, Value) {
    let (code, message) = match refusal {
        Refusal::NoCredential => (
            1004,
            "login fail: Please carry the API secret key in the 'Authorization' field of the request header"
                .to_owned(),
        ),
        Refusal::BadCredential | Refusal::ExpiredCredential => (2049, "invalid api key".to_owned()),
        Refusal::RateLimited => (1002, "rate limit".to_owned()),
        Refusal::Overloaded => (1013, "service is busy".to_owned()),
        Refusal::Broken => (1000, "unknown error".to_owned()),
        Refusal::Filtered => (1026, "input new_sensitive".to_owned()),
        Refusal::TooLong => (1039, "token limit".to_owned()),
        Refusal::NoSuchPath => return (404, json!("404 page not found")),
        other => (2013, format!("invalid params, {}", other.sentence())),
    };
    (200, json!({ "id": id, "base_resp": { "status_code": code, "status_msg": message } }))
}
