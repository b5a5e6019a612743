//! `chatcompletion_pro`: speakers have names, the answer is a bot's `reply`; and the embeddings of that time.

use std::sync::Arc;

use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, FinishReason, Message, Result, Role,
    ToolCallDelta, Usage, UsageSource,
};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};
use url::Url;

use super::{NAME, error_in, trace};
use crate::dialects::openai::retry_after;
use crate::dialects::shared::{self, Growing, Refusal, count_at, decimal, text_at};
use crate::{Decode, Delta, Dialect, Features, Frame, Framing, Outbound, Parameters, Secret, Signing};

const TAKES: &[&str] = &["temperature", "top_p", "max_tokens", "tools"];
const EXTRA: &[&str] = &["glyph", "mask_sensitive_info", "plugins", "sample_messages"];
const EXTRA_EMBEDDING: &[&str] = &["type"];
const CREDENTIALS: &str = "saas.api_key and saas.group_id";

/// Names of the speakers, as the original gives them.
const USER: &str = "User";
const BOT: &str = "Assistant";
/// What the bot is when no system message says so; the API wants something.
const CHARACTER: &str = "A helpful assistant";

struct Pro {
    key: Secret,
    model: String,
    /// With the group in its query.
    url: Url,
    shown: Url,
    embeds: bool,
}

/// Opens a deployment.
pub(super) fn open(
    parameters: &Parameters,
    mut url: Url,
    group: &str,
    embeds: bool,
) -> Result<Arc<dyn Dialect>> {
    let shown = super::without_query(&url);
    url.query_pairs_mut().append_pair("GroupId", group);
    let key = shared::secret(parameters, "minimax", "api_key")?;
    Ok(Arc::new(Pro { key, model: parameters.text("model").to_owned(), url, shown, embeds }))
}

impl Pro {
    fn post(&self, body: &Value, framing: Framing) -> Result<Outbound> {
        let headers = shared::credential(AUTHORIZATION, "Bearer ", &self.key, "saas.api_key")?;
        Ok(shared::post(self.url.clone(), headers, body, framing))
    }
}

impl Dialect for Pro {
    fn features(&self) -> Features {
        let chat = !self.embeds;
        Features {
            chat,
            stream: chat,
            tools: chat,
            usage: true,
            embeddings: self.embeds,
            ..Features::default()
        }
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn base_url(&self) -> Option<&Url> {
        Some(&self.shown)
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        if self.embeds { EXTRA_EMBEDDING } else { EXTRA }
    }

    fn chat(&self, request: &ChatRequest, _: &Signing<'_>) -> Result<Outbound> {
        if self.embeds {
            let message = format!("'{}' makes embeddings and does not chat", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        shared::refuse_others("minimax", request, TAKES)?;
        let framing = if request.whole { Framing::Whole } else { Framing::Sse };
        self.post(&body(&self.model, request)?, framing)
    }

    fn decoder(&self, _: &ChatRequest) -> Box<dyn Decode> {
        Box::new(Reader::default())
    }

    fn embed(&self, request: &EmbeddingRequest, _: &Signing<'_>) -> Result<Outbound> {
        if !self.embeds {
            let message = format!("'{}' makes no embeddings; set saas.model to embo-01", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        if request.dimensions.is_some() {
            return Err(crate::refusal::refuse("dimensions", "minimax"));
        }
        let kind = request.extra.get("type").cloned().unwrap_or_else(|| json!("db"));
        let texts = shared::texts("minimax", request)?;
        self.post(&json!({"model": self.model, "texts": texts, "type": kind}), Framing::Whole)
    }

    fn embedding_batch(&self) -> usize {
        4096
    }

    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        let body = shared::json(NAME, &String::from_utf8_lossy(body))?;
        if let Some(error) = error_in(200, &body, None, None) {
            return Err(error);
        }
        let vectors = body.get("vectors").and_then(Value::as_array).into_iter().flatten();
        let vectors = vectors.map(|vector| shared::vector(NAME, Some(vector))).collect::<Result<Vec<_>>>()?;
        let usage = match count_at(&body, "/total_tokens") {
            Some(tokens) => shared::reported(tokens, 0),
            None => Usage { source: UsageSource::Unknown, ..Usage::default() },
        };
        Ok(Embeddings { vectors, usage, notices: Vec::new() })
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let (request_id, retry_after) = (trace(headers), retry_after(headers));
        error_in(status, &value, request_id, retry_after).unwrap_or_else(|| {
            let message = text_at(&value, "/message");
            Refusal {
                vendor: NAME,
                status,
                meaning: None,
                message,
                credentials: CREDENTIALS,
                request_id,
                retry_after,
            }
            .error()
        })
    }
}

fn body(model: &str, request: &ChatRequest) -> Result<Value> {
    let messages = shared::conversation("minimax", request)?;
    let (system, rest) = shared::split_system(&messages);
    let s = &request.sampling;
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("model", Some(json!(model)));
    put("messages", Some(Value::Array(rest.iter().map(|message| turn(message)).collect::<Result<_>>()?)));
    put("bot_setting", Some(json!([{"bot_name": BOT, "content": system.as_deref().unwrap_or(CHARACTER)}])));
    let mut constraints = json!({"sender_type": "BOT", "sender_name": BOT});
    if let Some(glyph) = request.extra.get("glyph") {
        constraints["glyph"] = glyph.clone();
    }
    put("reply_constraints", Some(constraints));
    put("tokens_to_generate", s.max_tokens.map(Value::from));
    if let Some(temperature) = s.temperature {
        if !(temperature > 0.0 && temperature <= 1.0) {
            let message = format!("MiniMax's temperature is above 0 and at most 1, got {temperature}");
            return Err(Error::invalid("temperature", message));
        }
        put("temperature", Some(decimal(temperature)));
    }
    put("top_p", s.top_p.map(decimal));
    if !request.tools.is_empty() {
        put("functions", Some(request.tools.iter().map(shared::function).collect()));
    }
    if !request.whole {
        put("stream", Some(json!(true)));
    }
    for (name, value) in request.extra.iter().filter(|(name, _)| *name != "glyph") {
        put(name, Some(value.clone()));
    }
    Ok(Value::Object(out))
}

fn turn(message: &Message) -> Result<Value> {
    let (kind, name) = match message.role {
        Role::User | Role::System => ("USER", shared::extra(message, "name").unwrap_or(USER)),
        Role::Assistant => ("BOT", BOT),
        Role::Tool => ("FUNCTION", BOT),
    };
    let mut turn = json!({"sender_type": kind, "sender_name": name, "text": message.content});
    match shared::calls(message)?.as_slice() {
        [] => {}
        [call] => turn["function_call"] = json!({"name": call.name, "arguments": call.arguments_text()}),
        _ => {
            let message =
                "chatcompletion_pro knows one function call per message, and these messages hold more";
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("messages"));
        }
    }
    Ok(turn)
}

/// Reads an answer. Frames of a stream bring the next piece, the last one the whole answer again.
#[derive(Default)]
struct Reader {
    text: Growing,
    called: bool,
    over: bool,
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let value = shared::json(NAME, frame.data)?;
        if let Some(error) = error_in(0, &value, None, None) {
            return Err(error);
        }
        if self.over {
            return Ok(());
        }
        let choice = value.pointer("/choices/0");
        let choice = choice.ok_or_else(|| {
            Error::new(ErrorKind::Upstream, format!("{NAME} sent a frame without a choice"))
        })?;
        let id = ["/id", "/request_id"]
            .iter()
            .map(|at| text_at(&value, at))
            .find(|id| !id.is_empty())
            .unwrap_or_default();
        if !id.is_empty() {
            out.push(Delta::RequestId(id.to_owned()));
        }
        let messages = || choice.get("messages").and_then(Value::as_array).into_iter().flatten();
        let said: String = messages().map(|message| text_at(message, "/text")).collect();
        let reason = text_at(choice, "/finish_reason");
        let text = if reason.is_empty() {
            self.text.append(&said);
            said
        } else {
            let reply = text_at(&value, "/reply");
            self.text.advance(NAME, if reply.is_empty() { &said } else { reply }, true)?
        };
        if !text.is_empty() {
            out.push(Delta::Text(0, text));
        }
        if let Some(call) =
            messages().find_map(|message| message.get("function_call").filter(|call| call.is_object()))
            && !self.called
        {
            self.called = true;
            // It comes whole and without an id.
            let arguments = text_at(call, "/arguments");
            let arguments = if arguments.is_empty() { "{}" } else { arguments }.to_owned();
            let id = Some(format!("call-{}", if id.is_empty() { "0" } else { id }));
            let name = Some(text_at(call, "/name").to_owned());
            out.push(Delta::ToolCall(0, ToolCallDelta { index: 0, id, name, arguments }));
        }
        if !reason.is_empty() {
            self.over = true;
            let filtered = value.get("output_sensitive").and_then(Value::as_bool) == Some(true);
            let reason = match reason {
                _ if filtered => FinishReason::ContentFilter,
                "length" | "max_output" => FinishReason::Length,
                _ if self.called => FinishReason::ToolCalls,
                _ => FinishReason::Stop,
            };
            out.push(Delta::Finished(0, reason));
            if let Some(usage) = value.get("usage").and_then(usage) {
                out.push(Delta::Usage(usage));
            }
            out.push(Delta::End);
        }
        Ok(())
    }
}

/// Older models report the sum alone; it is billed at one price, and stands where the dearer tokens stand.
fn usage(value: &Value) -> Option<Usage> {
    let total = count_at(value, "/total_tokens");
    match (count_at(value, "/prompt_tokens"), count_at(value, "/completion_tokens")) {
        (Some(prompt), Some(completion)) if prompt.saturating_add(completion) > 0 => {
            Some(shared::reported(prompt, completion))
        }
        _ => Some(shared::reported(0, total?)),
    }
}
