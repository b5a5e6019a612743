//! DashScope's own protocol: `qianwen` for text and vectors, `qianwen_vl` for pictures.
//!
//! Written from <https://help.aliyun.com/zh/model-studio/qwen-api-via-dashscope> and `dashscope` 2.0.2,
//! `api_entities/http_request.py` and `common/utils.py`.

use serde_json::{Map, Value, json};

use super::openai_read::{choice, format, tools};
use crate::http::{Request, Whole};
use crate::model::{Answer, Chat, Embed, Finish, Said, Turn, Wish};
use crate::protocol::{
    Door, Frame, Job, Protocol, Reply, count, flag, known_model, number, object, required, texts,
};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

const TEXT: &str = "/api/v1/services/aigc/text-generation/generation";
const PICTURES: &str = "/api/v1/services/aigc/multimodal-generation/generation";
const VECTORS: &str = "/api/v1/services/embeddings/text-embedding/text-embedding";

/// Models for vectors: name, length, the most texts of one request.
const EMBEDDINGS: [(&str, usize, usize); 4] = [
    ("text-embedding-v1", 1536, 25),
    ("text-embedding-v2", 1536, 25),
    ("text-embedding-v3", 1024, 10),
    ("text-embedding-v4", 1024, 10),
];

/// The vendor; pictures go another path and come back as lists of parts.
pub(crate) struct DashScope {
    pub(crate) pictures: bool,
}

impl Protocol for DashScope {
    fn base(&self) -> &'static str {
        "/api/v1"
    }

    fn id(&self, number: u64) -> String {
        format!("00000000-0000-9000-8000-{number:012x}")
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        door.credentials.opens(request.bearer().ok_or(Refusal::NoCredential)?)?;
        let body = object(request)
            .map_err(|refusal| if request.method == "POST" { refusal } else { Refusal::NoSuchPath })?;
        let bytes = request.body.len() as u64;
        let stream = request.header("x-dashscope-sse") == Some("enable")
            || request.header("accept").is_some_and(|accept| accept.contains("text/event-stream"));
        match request.path.as_str() {
            TEXT | PICTURES if (request.path == PICTURES) == self.pictures => {
                self.chat(&body, stream, bytes, door).map(|chat| Job::Chat(Box::new(chat)))
            }
            VECTORS if !self.pictures => vectors(&body, bytes, door).map(Job::Embed),
            _ => Err(Refusal::NoSuchPath),
        }
    }

    fn refuse(&self, refusal: &Refusal, _request: &Request, id: &str) -> Whole {
        let (status, body) = error(refusal, id);
        Whole::json(status, &body).with("x-request-id", id)
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        let Some(said) = answer.choices.first() else {
            return Reply::Whole(Whole::json(500, &error(&Refusal::Broken, &answer.id).1));
        };
        if !chat.stream {
            let finish = finish_word(said.finish);
            let output = self.output(chat, said, &said.text.concat(), &said.reasoning.concat(), finish);
            let body = envelope(&output, answer.shown, &answer.id);
            return Reply::Whole(Whole::json(200, &body).with("x-request-id", answer.id.clone()));
        }
        let head = vec![("x-request-id".to_owned(), answer.id.clone())];
        Reply::Events(head, self.events(chat, answer, said))
    }

    fn embedded(&self, _embed: &Embed, vectors: &[Vec<f32>], shown: Option<Tokens>, id: &str) -> Whole {
        let rows: Vec<Value> = (0..)
            .zip(vectors)
            .map(|(index, vector)| json!({ "text_index": index, "embedding": vector }))
            .collect();
        let mut body = json!({ "output": { "embeddings": rows }, "request_id": id });
        if let Some(shown) = shown {
            body["usage"] = json!({ "total_tokens": shown.total() });
        }
        Whole::json(200, &body).with("x-request-id", id)
    }

    fn stream_error(&self, _chat: &Chat, id: &str) -> Frame {
        let (status, body) = error(&Refusal::Broken, id);
        Frame { head: format!("event:error\n:HTTP_STATUS/{status}\n"), data: body.to_string(), text: false }
    }

    fn numbered(&self, _request: &Request) -> bool {
        true
    }
}

impl DashScope {
    fn chat(
        &self,
        body: &Map<String, Value>,
        stream: bool,
        bytes: u64,
        door: &Door<'_>,
    ) -> Result<Chat, Refusal> {
        let model = required(body, "model")?.to_owned();
        let known: &[&str] = if self.pictures {
            &["qwen-vl", "qwen2", "qwen3-vl", "qvq"]
        } else {
            &["qwen", "qwq", "deepseek-"]
        };
        known_model(&model, known, &door.credentials.models)?;
        let input = body
            .get("input")
            .and_then(Value::as_object)
            .ok_or_else(|| Refusal::Missing("input".to_owned()))?;
        let empty = Map::new();
        let parameters = body.get("parameters").and_then(Value::as_object).unwrap_or(&empty);
        number(parameters, "temperature", 0.0, 1.999_999)?;
        number(parameters, "top_p", f64::MIN_POSITIVE, 1.0)?;
        number(parameters, "top_k", 0.0, f64::MAX)?;
        number(parameters, "presence_penalty", -2.0, 2.0)?;
        number(parameters, "repetition_penalty", f64::MIN_POSITIVE, f64::MAX)?;
        number(parameters, "n", 1.0, 1.0)?;
        let message = match parameters.get("result_format").and_then(Value::as_str) {
            None | Some("text") => self.pictures,
            Some("message") => true,
            Some(_) => {
                return Err(Refusal::Invalid("result_format".to_owned(), "text or message".to_owned()));
            }
        };
        let tools = tools(parameters.get("tools"))?;
        if !tools.is_empty() && !message {
            let what = "it must be message when tools are given".to_owned();
            return Err(Refusal::Invalid("result_format".to_owned(), what));
        }
        let thinking = flag(parameters, "enable_thinking")?;
        let incremental = flag(parameters, "incremental_output")?;
        if thinking && !stream {
            let what = "parameter.enable_thinking only support stream call".to_owned();
            return Err(Refusal::Invalid("enable_thinking".to_owned(), what));
        }
        Ok(Chat {
            turns: turns(input, self.pictures)?,
            choice: if tools.is_empty() {
                choice(None, &tools)?
            } else {
                choice(parameters.get("tool_choice"), &tools)?
            },
            tools,
            stream,
            max_tokens: count(parameters, "max_tokens")?,
            n: 1,
            stop: texts(parameters, "stop")?,
            thinking: thinking
                || model.starts_with("qwq")
                || model.starts_with("qvq")
                || model.starts_with("deepseek-r1"),
            format: format(parameters.get("response_format"))?,
            bytes,
            wish: Wish { incremental, message, ..Wish::default() },
            model,
            ..Chat::default()
        })
    }

    /// The output of one event, or of the whole answer.
    fn output(&self, chat: &Chat, said: &Said, text: &str, reasoning: &str, finish: &str) -> Value {
        if !chat.wish.message {
            return json!({ "text": text, "finish_reason": finish });
        }
        let calls: Vec<Value> = if finish == "tool_calls" {
            (0..)
                .zip(&said.calls)
                .map(|(index, call)| call_piece(index, &call.id, &call.name, &call.arguments.concat()))
                .collect()
        } else {
            Vec::new()
        };
        self.message(text, reasoning, calls, finish)
    }

    fn message(&self, text: &str, reasoning: &str, calls: Vec<Value>, finish: &str) -> Value {
        let content = match (self.pictures, text.is_empty()) {
            (false, _) => Value::from(text),
            (true, true) => json!([]),
            (true, false) => json!([{ "text": text }]),
        };
        let mut message = json!({ "role": "assistant", "content": content });
        if !reasoning.is_empty() {
            message["reasoning_content"] = reasoning.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        json!({ "choices": [{ "message": message, "finish_reason": finish }] })
    }

    fn events(&self, chat: &Chat, answer: &Answer, said: &Said) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut push = |output: Value, text: bool| {
            let number = frames.len() + 1;
            let head = format!("id:{number}\nevent:result\n:HTTP_STATUS/200\n");
            let data = envelope(&output, answer.shown, &answer.id).to_string();
            frames.push(Frame { head, data, text });
        };
        let incremental = chat.wish.incremental;
        let (mut text, mut reasoning) = (String::new(), String::new());
        for piece in &said.reasoning {
            reasoning.push_str(piece);
            let shown = if incremental { piece } else { &reasoning };
            push(self.output(chat, said, "", shown, "null"), true);
        }
        for piece in &said.text {
            text.push_str(piece);
            let (shown, thought) = if incremental { (piece, "") } else { (&text, reasoning.as_str()) };
            push(self.output(chat, said, shown, thought, "null"), true);
        }
        // Calls come piece by piece only where pieces were asked for.
        if incremental && chat.wish.message {
            for (index, call) in (0..).zip(&said.calls) {
                push(self.message("", "", vec![call_piece(index, &call.id, &call.name, "")], "null"), true);
                for piece in &call.arguments {
                    push(self.message("", "", vec![call_piece(index, "", "", piece)], "null"), true);
                }
            }
        }
        let finish = finish_word(said.finish);
        let last = if incremental && chat.wish.message {
            self.message("", "", Vec::new(), finish)
        } else if incremental {
            self.output(chat, said, "", "", finish)
        } else {
            self.output(chat, said, &text, &reasoning, finish)
        };
        push(last, false);
        frames
    }
}

fn call_piece(index: u32, id: &str, name: &str, arguments: &str) -> Value {
    let mut function = json!({ "arguments": arguments });
    if !name.is_empty() {
        function["name"] = name.into();
    }
    json!({ "index": index, "id": id, "type": "function", "function": function })
}

fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter => "content_filter",
    }
}

fn envelope(output: &Value, shown: Option<Tokens>, id: &str) -> Value {
    let mut body = json!({ "output": output });
    if let Some(shown) = shown {
        body["usage"] = json!({
            "input_tokens": shown.prompt,
            "output_tokens": shown.completion,
            "total_tokens": shown.total(),
            "prompt_tokens_details": { "cached_tokens": shown.cached },
            "output_tokens_details": { "reasoning_tokens": shown.reasoning },
        });
    }
    body["request_id"] = id.into();
    body
}

fn turns(input: &Map<String, Value>, pictures: bool) -> Result<Vec<Turn>, Refusal> {
    let wrong = |what: &str| Refusal::Invalid("messages".to_owned(), what.to_owned());
    if let Some(prompt) = input.get("prompt").and_then(Value::as_str) {
        return Ok(vec![Turn { role: "user".to_owned(), text: prompt.to_owned(), images: 0 }]);
    }
    let list = input.get("messages").and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Refusal::Missing("messages".to_owned()))?;
    let mut turns = Vec::new();
    for message in list {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if !["system", "user", "assistant", "tool"].contains(&role) {
            return Err(wrong("'role' must be one of system, assistant, user, tool"));
        }
        let mut turn = Turn { role: role.to_owned(), ..Turn::default() };
        match message.get("content") {
            Some(Value::String(text)) => turn.text.clone_from(text),
            Some(Value::Array(parts)) if pictures || parts.iter().all(|part| part.get("image").is_none()) => {
                for part in parts {
                    if let Some(text) = part.get("text").and_then(Value::as_str) {
                        turn.text.push_str(text);
                    } else if part.get("image").and_then(Value::as_str).is_some() {
                        turn.images += 1;
                    } else {
                        return Err(wrong("a part must hold a text or an image"));
                    }
                }
            }
            None | Some(Value::Null) if role == "assistant" => {}
            _ => return Err(wrong("'content' must be a text or a list of parts")),
        }
        turns.push(turn);
    }
    Ok(turns)
}

fn vectors(body: &Map<String, Value>, bytes: u64, door: &Door<'_>) -> Result<Embed, Refusal> {
    let model = required(body, "model")?.to_owned();
    let row = EMBEDDINGS.iter().find(|(name, ..)| *name == model);
    let (full, batch) = match row {
        Some((_, full, batch)) => (*full, *batch),
        None if door.credentials.models.contains(&model) => (16, 10),
        None => return Err(Refusal::NoSuchModel(model)),
    };
    let input =
        body.get("input").and_then(Value::as_object).ok_or_else(|| Refusal::Missing("input".to_owned()))?;
    let texts = texts(input, "texts")?;
    if texts.is_empty() || texts.len() > batch || texts.iter().any(String::is_empty) {
        let what = format!("it must hold 1 to {batch} texts, none of them empty");
        return Err(Refusal::Invalid("texts".to_owned(), what));
    }
    let empty = Map::new();
    let parameters = body.get("parameters").and_then(Value::as_object).unwrap_or(&empty);
    let wished = count(parameters, "dimension")?.and_then(|wished| usize::try_from(wished).ok());
    if wished.is_some_and(|wished| ![64, 128, 256, 512, 768, 1024, 1536, 2048].contains(&wished)) {
        return Err(Refusal::Invalid("dimension".to_owned(), "no such dimension".to_owned()));
    }
    Ok(Embed { model, texts, dimensions: wished.unwrap_or(full), base64: false, bytes })
}

/// <https://help.aliyun.com/zh/model-studio/error-code>
fn error(refusal: &Refusal, id: &str) -> (u16, Value) {
    let (status, code, message) = match refusal {
        Refusal::NoCredential => (401, "InvalidApiKey", "No API-key provided.".to_owned()),
        Refusal::BadCredential | Refusal::ExpiredCredential => {
            (401, "InvalidApiKey", "Invalid API-key provided.".to_owned())
        }
        Refusal::NoSuchPath => (400, "InvalidParameter", "url error, please check url！".to_owned()),
        Refusal::NoSuchModel(_) => (404, "ModelNotFound", "Model not exist.".to_owned()),
        Refusal::Filtered => {
            (400, "DataInspectionFailed", "Input data may contain inappropriate content.".to_owned())
        }
        Refusal::RateLimited => {
            (429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.".to_owned())
        }
        Refusal::Overloaded => {
            (503, "ModelServingError", "Too many requests. Your requests are being throttled.".to_owned())
        }
        Refusal::Broken => {
            (500, "InternalError", "An internal error has occured, please try again later.".to_owned())
        }
        Refusal::Missing(name) => {
            (400, "InvalidParameter", format!("Required parameter(s) missing or invalid: {name}"))
        }
        other => (400, "InvalidParameter", other.sentence()),
    };
    (status, json!({ "code": code, "message": message, "request_id": id }))
}
