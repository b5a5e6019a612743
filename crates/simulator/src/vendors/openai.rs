//! OpenAI's dialect: chat completions as whole bodies and as events, embeddings, and who says what it cost where.
//!
//! Written from <https://platform.openai.com/docs/api-reference/chat> and from `openai` 3.54.0 and `zhipuai` 2.1.5.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::flavours::{Auth, Flavour, Place, Thinks};
use super::{openai_read, zhipu};
use crate::http::{Request, Whole};
use crate::model::{Answer, Call, Chat, Embed, Finish, Said};
use crate::protocol::{Door, Frame, Job, Protocol, Reply, object};
use crate::refusal::Refusal;
use crate::tokens::{self, Tokens};

/// A vendor that speaks it.
pub(crate) struct OpenAi {
    pub(crate) flavour: &'static Flavour,
}

impl Protocol for OpenAi {
    fn base(&self) -> &'static str {
        self.flavour.base
    }

    fn id(&self, number: u64) -> String {
        format!("{}{number:012}", self.flavour.id)
    }

    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal> {
        self.admit(request, door)?;
        let (task, deployment) = self.task(request)?;
        if task == "models" {
            return Ok(Job::Free(self.models()));
        }
        if request.method != "POST" {
            return Err(Refusal::NoSuchPath);
        }
        let mut body = object(request)?;
        if let Some(deployment) = deployment {
            // The deployment in the path decides; a name in the body is for logs.
            body.insert("model".to_owned(), deployment.into());
        }
        let bytes = request.body.len() as u64;
        match task {
            "embeddings" => openai_read::embed(&body, self.flavour, bytes, door).map(Job::Embed),
            "completions" => {
                openai_read::text(&body, self.flavour, bytes, door).map(|chat| Job::Chat(Box::new(chat)))
            }
            _ => openai_read::chat(&body, self.flavour, bytes, door).map(|chat| Job::Chat(Box::new(chat))),
        }
    }

    fn refuse(&self, refusal: &Refusal, _request: &Request, id: &str) -> Whole {
        let (status, body) = (self.flavour.refuse)(refusal, id);
        Whole::json(status, &body).with(self.flavour.header, id)
    }

    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply {
        if chat.stream {
            let head = vec![(self.flavour.header.to_owned(), answer.id.clone())];
            return Reply::Events(head, self.events(chat, answer));
        }
        let choices: Vec<Value> = (0..)
            .zip(&answer.choices)
            .map(|(index, said)| {
                let finish = self.finish(said.finish);
                if chat.wish.completion {
                    return json!({ "index": index, "text": said.text.concat(), "logprobs": null, "finish_reason": finish });
                }
                json!({ "index": index, "message": self.message(said), "logprobs": null, "finish_reason": finish })
            })
            .collect();
        let mut body = self.envelope(chat, answer, false);
        body.insert("choices".to_owned(), choices.into());
        if let Some(shown) = answer.shown {
            body.insert("usage".to_owned(), self.usage(shown));
        }
        Reply::Whole(Whole::json(200, &body.into()).with(self.flavour.header, answer.id.clone()))
    }

    fn embedded(&self, embed: &Embed, vectors: &[Vec<f32>], shown: Option<Tokens>, id: &str) -> Whole {
        let data: Vec<Value> = (0..)
            .zip(vectors)
            .map(|(index, vector)| {
                let vector = if embed.base64 {
                    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                    Value::from(STANDARD.encode(bytes))
                } else {
                    Value::from(vector.clone())
                };
                json!({ "object": "embedding", "index": index, "embedding": vector })
            })
            .collect();
        let mut body = json!({ "object": "list", "data": data, "model": embed.model });
        if let (Some(shown), Some(body)) = (shown, body.as_object_mut()) {
            let (prompt, total) = (shown.prompt, shown.total());
            let usage = if self.flavour.auth == Auth::Zhipu {
                json!({ "prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": total })
            } else {
                json!({ "prompt_tokens": prompt, "total_tokens": total })
            };
            body.insert("usage".to_owned(), usage);
        }
        Whole::json(200, &body).with(self.flavour.header, id)
    }

    fn stream_error(&self, _chat: &Chat, id: &str) -> Frame {
        let (_, body) = (self.flavour.refuse)(&Refusal::Broken, id);
        Frame::new(&body, false)
    }
}

impl OpenAi {
    fn admit(&self, request: &Request, door: &Door<'_>) -> Result<(), Refusal> {
        match self.flavour.auth {
            Auth::Azure => {
                let key =
                    request.header("api-key").or_else(|| request.bearer()).ok_or(Refusal::NoCredential)?;
                door.credentials.opens(key)?;
                // 2024-06-01, with or without -preview.
                let version = request.parameter("api-version").ok_or(Refusal::NoSuchPath)?;
                let date = version.strip_suffix("-preview").unwrap_or(version);
                let plausible =
                    date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
                if plausible { Ok(()) } else { Err(Refusal::NoSuchPath) }
            }
            Auth::Bearer => door.credentials.opens(request.bearer().ok_or(Refusal::NoCredential)?),
            Auth::Zhipu => {
                // The vendor takes the bare key and the token with and without "Bearer".
                let whole = request.header("authorization").ok_or(Refusal::NoCredential)?;
                zhipu::admit(request.bearer().unwrap_or(whole), door)
            }
        }
    }

    /// What a path asks for, and the deployment that it names.
    fn task<'a>(&self, request: &'a Request) -> Result<(&'static str, Option<&'a str>), Refusal> {
        let path = request.path.as_str();
        let (rest, deployment) = if self.flavour.auth == Auth::Azure {
            let rest = path.strip_prefix("/openai/deployments/").ok_or(Refusal::NoSuchPath)?;
            let (deployment, rest) = rest.split_once('/').ok_or(Refusal::NoSuchPath)?;
            (rest, Some(deployment))
        } else {
            let inside = path.strip_prefix(self.flavour.base).ok_or(Refusal::NoSuchPath)?;
            // DeepSeek takes its paths below /v1 and /beta, too.
            let inside = match self.flavour.base {
                "" => inside.strip_prefix("/v1").or_else(|| inside.strip_prefix("/beta")).unwrap_or(inside),
                _ => inside,
            };
            (inside.strip_prefix('/').ok_or(Refusal::NoSuchPath)?, None)
        };
        let task = match rest {
            "chat/completions" => "chat",
            "completions" if matches!(self.flavour.name, "openai" | "azure_openai") => "completions",
            "embeddings" if !self.flavour.embeddings.is_empty() => "embeddings",
            "models" if request.method == "GET" => "models",
            _ => return Err(Refusal::NoSuchPath),
        };
        Ok((task, deployment))
    }

    fn models(&self) -> Whole {
        let names = self.flavour.embeddings.iter().map(|(name, _)| *name);
        let data: Vec<Value> = names
            .map(|name| json!({ "id": name, "object": "model", "created": 1_700_000_000, "owned_by": self.flavour.name }))
            .collect();
        Whole::json(200, &json!({ "object": "list", "data": data }))
    }

    fn envelope(&self, chat: &Chat, answer: &Answer, chunk: bool) -> Map<String, Value> {
        let object = match (chat.wish.completion, chunk) {
            (true, _) => "text_completion",
            (false, true) => "chat.completion.chunk",
            (false, false) => "chat.completion",
        };
        let mut body = Map::new();
        body.insert("id".to_owned(), answer.id.clone().into());
        body.insert("object".to_owned(), object.into());
        body.insert("created".to_owned(), answer.created.into());
        body.insert("model".to_owned(), chat.model.clone().into());
        if self.flavour.auth == Auth::Zhipu {
            body.insert("request_id".to_owned(), answer.id.clone().into());
        }
        body
    }

    fn message(&self, said: &Said) -> Value {
        let text = said.text.concat();
        let content = if text.is_empty() && !said.calls.is_empty() { Value::Null } else { text.into() };
        let mut message = json!({ "role": "assistant", "content": content });
        if !said.reasoning.is_empty() {
            message["reasoning_content"] = said.reasoning.concat().into();
        }
        if !said.calls.is_empty() {
            let calls: Vec<Value> = (0..)
                .zip(&said.calls)
                .map(|(index, call)| {
                    let function = json!({ "name": call.name, "arguments": call.arguments.concat() });
                    json!({ "index": index, "id": call.id, "type": "function", "function": function })
                })
                .collect();
            message["tool_calls"] = calls.into();
        }
        message
    }

    fn finish(&self, finish: Finish) -> &'static str {
        match finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::ContentFilter => self.flavour.filtered,
        }
    }

    fn usage(&self, shown: Tokens) -> Value {
        let mut usage = json!({
            "prompt_tokens": shown.prompt,
            "completion_tokens": shown.completion,
            "total_tokens": shown.total(),
            "prompt_tokens_details": { "cached_tokens": shown.cached },
            "completion_tokens_details": { "reasoning_tokens": shown.reasoning },
        });
        match self.flavour.name {
            "deepseek" => {
                usage["prompt_cache_hit_tokens"] = shown.cached.into();
                usage["prompt_cache_miss_tokens"] = (shown.prompt - shown.cached).into();
            }
            "moonshot" => usage["cached_tokens"] = shown.cached.into(),
            _ => {}
        }
        usage
    }

    fn events(&self, chat: &Chat, answer: &Answer) -> Vec<Frame> {
        let mut events = Events { to: self, chat, answer, frames: Vec::new(), sent: 0 };
        if self.flavour.auth == Auth::Azure {
            let results = json!([{ "prompt_index": 0, "content_filter_results": {} }]);
            let mut body = self.envelope(chat, answer, true);
            body.insert("choices".to_owned(), json!([]));
            body.insert("prompt_filter_results".to_owned(), results);
            events.frames.push(Frame::new(&body.into(), false));
        }
        for (index, said) in (0..).zip(&answer.choices) {
            events.choice(index, said);
        }
        let mut frames = events.frames;
        if self.flavour.place == Place::OwnEvent && chat.wish.usage {
            let mut body = self.envelope(chat, answer, true);
            body.insert("choices".to_owned(), json!([]));
            if let Some(shown) = answer.shown {
                body.insert("usage".to_owned(), self.usage(shown));
            }
            frames.push(Frame::new(&body.into(), false));
        }
        if self.flavour.comments
            && let Some(first) = frames.first_mut()
        {
            first.head = ": keep-alive\n\n".to_owned();
        }
        frames.push(Frame { head: String::new(), data: "[DONE]".to_owned(), text: false });
        frames
    }
}

/// The events of one answer, as they are written.
struct Events<'a> {
    to: &'a OpenAi,
    chat: &'a Chat,
    answer: &'a Answer,
    frames: Vec<Frame>,
    sent: u64,
}

impl Events<'_> {
    fn choice(&mut self, index: u32, said: &Said) {
        if !self.chat.wish.completion {
            self.delta(index, &json!({ "role": "assistant", "content": "" }), false);
        }
        for piece in &said.reasoning {
            self.sent += tokens::count(piece);
            self.delta(index, &json!({ "content": null, "reasoning_content": piece }), true);
        }
        for piece in &said.text {
            self.sent += tokens::count(piece);
            self.delta(index, &json!({ "content": piece }), true);
        }
        for (number, call) in (0..).zip(&said.calls) {
            self.call(index, number, call);
        }
        self.end(index, said.finish);
    }

    fn call(&mut self, index: u32, number: u32, call: &Call) {
        let whole = self.to.flavour.auth == Auth::Zhipu;
        let first = if whole { call.arguments.concat() } else { String::new() };
        let function = json!({ "name": call.name, "arguments": first });
        let opening = json!({ "index": number, "id": call.id, "type": "function", "function": function });
        self.delta(index, &json!({ "tool_calls": [opening] }), true);
        // Zhipu sends a call in one piece.
        for piece in call.arguments.iter().filter(|_| !whole) {
            let more = json!({ "index": number, "function": { "arguments": piece } });
            self.delta(index, &json!({ "tool_calls": [more] }), true);
        }
    }

    fn end(&mut self, index: u32, finish: Finish) {
        let finish = self.to.finish(finish);
        let last = index as usize + 1 == self.answer.choices.len();
        let delta = match self.to.flavour.auth {
            Auth::Zhipu => json!({ "role": "assistant", "content": "" }),
            _ => json!({}),
        };
        let mut body = self.body(index, &delta, Some(finish));
        if let (Some(shown), true) = (self.answer.shown, last) {
            match self.to.flavour.place {
                Place::LastEvent | Place::EveryEvent => body["usage"] = self.to.usage(shown),
                Place::Choice => body["choices"][0]["usage"] = self.to.usage(shown),
                Place::OwnEvent | Place::Nowhere => {}
            }
        }
        self.frames.push(Frame::new(&body, false));
    }

    fn delta(&mut self, index: u32, delta: &Value, text: bool) {
        let mut body = self.body(index, delta, None);
        if let (Place::EveryEvent, Some(shown)) = (self.to.flavour.place, self.answer.shown) {
            let far = Tokens { completion: self.sent.min(shown.completion), reasoning: 0, ..shown };
            body["usage"] = self.to.usage(far);
        }
        self.frames.push(Frame::new(&body, text));
    }

    fn body(&self, index: u32, delta: &Value, finish: Option<&str>) -> Value {
        let choice = if self.chat.wish.completion {
            let text = delta.get("content").cloned().unwrap_or_else(|| "".into());
            json!({ "index": index, "text": text, "logprobs": null, "finish_reason": finish })
        } else {
            json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish })
        };
        let mut body = self.to.envelope(self.chat, self.answer, true);
        body.insert("choices".to_owned(), json!([choice]));
        if self.to.flavour.place == Place::OwnEvent && self.chat.wish.usage {
            body.insert("usage".to_owned(), Value::Null);
        }
        body.into()
    }
}

/// Whether a request asks for reasoning.
pub(crate) fn thinks(flavour: &Flavour, body: &Map<String, Value>, model: &str) -> bool {
    match flavour.thinks {
        Thinks::Never => false,
        Thinks::Flag => body.get("enable_thinking").and_then(Value::as_bool).unwrap_or(false),
        Thinks::Object(word) => {
            match body.get("thinking").and_then(|thinking| thinking.get("type")).and_then(Value::as_str) {
                Some(word) => word == "enabled",
                None => model.contains(word),
            }
        }
    }
}
