//! The first API: a token in the query, a path per model, `result` and `is_end`.

use bytes::Bytes;
use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, Message, ResponseFormat, Result, Role,
    ToolChoice, Usage, UsageSource,
};
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};
use url::Url;

use super::answer::{Reader, error};
use super::models::{self, Model};
use crate::dialects::openai::retry_after;
use crate::dialects::shared::{self, count_at, decimal, text_at};
use crate::refusal::header;
use crate::{Decode, Dialect, Features, Framing, Outbound, Parameters, Secret, Signing, TokenRequest};

/// The vendor's name for people.
pub(super) const NAME: &str = "Qianfan";
pub(super) const CREDENTIALS: &str = "saas.api_key and saas.secret_key";
const BASE: &str = "https://aip.baidubce.com";
const PREFIX: &str = "/rpc/2.0/ai_custom/v1/wenxinworkshop";
/// What the original deploys when no model is named.
const MODEL: &str = "ERNIE-Bot-turbo";

const EXTRA: &[&str] = &[
    "penalty_score",
    "disable_search",
    "enable_citation",
    "enable_trace",
    "enable_system_memory",
    "system_memory_id",
    "min_output_tokens",
    "user_setting",
    "user_id",
];
const EXTRA_EMBEDDING: &[&str] = &["user_id"];

/// One deployment.
pub(super) struct Qianfan {
    model: String,
    what: What,
    url: Url,
    credential: Credential,
}

#[derive(Clone, Copy)]
enum What {
    Chat(Model),
    Embeddings,
}

enum Credential {
    /// AK and SK, and where they are exchanged.
    Pair(Secret, Secret, Url),
    Token(Secret),
}

impl Qianfan {
    pub(super) fn open(parameters: &Parameters) -> Result<Self> {
        let model = parameters.optional_text("model").unwrap_or(MODEL).to_owned();
        let (what, path) = match (
            parameters.optional_text("endpoint"),
            models::embedding(&model),
            models::chat(&model),
        ) {
            (Some(path), Some(_), _) => (What::Embeddings, format!("/embeddings/{path}")),
            (Some(path), None, known) => {
                (What::Chat(known.copied().unwrap_or(models::OTHER)), format!("/chat/{path}"))
            }
            (None, Some(path), _) => (What::Embeddings, format!("/embeddings/{path}")),
            (None, None, Some(known)) => (What::Chat(*known), format!("/chat/{}", known.path)),
            (None, None, None) => {
                let message = format!(
                    "Qianfan has no model '{model}' of that name; for a service of your own set saas.endpoint"
                );
                return Err(Error::invalid("saas.model", message));
            }
        };
        let credential = match parameters.secret("access_token") {
            Some(token) => Credential::Token(token.clone()),
            None => {
                let base = parameters.url("base_url").map_or(BASE, Url::as_str).trim_end_matches('/');
                let base = base.strip_suffix(PREFIX).unwrap_or(base);
                let exchange = Url::parse(&format!("{base}/oauth/2.0/token"));
                let exchange = exchange
                    .map_err(|_| Error::invalid("saas.base_url", "saas.base_url is no base of a URL"))?;
                let [ak, sk] =
                    ["api_key", "secret_key"].map(|name| shared::secret(parameters, "qianfan", name));
                Credential::Pair(ak?, sk?, exchange)
            }
        };
        Ok(Self { url: shared::endpoint(parameters, BASE, PREFIX, &path)?, model, what, credential })
    }

    /// The address with the token in its query, where this API wants it.
    fn signed(&self, signing: &Signing<'_>) -> Result<Url> {
        let token = match &self.credential {
            Credential::Token(token) => token,
            Credential::Pair(..) => signing.token.ok_or_else(|| {
                Error::internal("a message for Qianfan was signed without its token; please report this")
            })?,
        };
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("access_token", token.expose());
        Ok(url)
    }
}

impl Dialect for Qianfan {
    fn features(&self) -> Features {
        let none = Features { usage: true, ..Features::default() };
        match self.what {
            What::Chat(model) => Features { chat: true, stream: true, tools: model.has_functions(), ..none },
            What::Embeddings => Features { embeddings: true, ..none },
        }
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn base_url(&self) -> Option<&Url> {
        Some(&self.url)
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        if matches!(self.what, What::Chat(_)) { EXTRA } else { EXTRA_EMBEDDING }
    }

    fn token(&self) -> Option<TokenRequest> {
        let Credential::Pair(ak, sk, exchange) = &self.credential else { return None };
        let mut url = exchange.clone();
        url.query_pairs_mut()
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", ak.expose())
            .append_pair("client_secret", sk.expose());
        let headers = HeaderMap::new();
        let outbound =
            Outbound { method: Method::POST, url, headers, body: Bytes::new(), framing: Framing::Whole };
        Some(TokenRequest { outbound, read })
    }

    fn chat(&self, request: &ChatRequest, signing: &Signing<'_>) -> Result<Outbound> {
        let What::Chat(model) = self.what else {
            let message = format!("'{}' makes embeddings and does not chat", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        };
        shared::refuse_others("qianfan", request, &model.takes())?;
        let framing = if request.whole { Framing::Whole } else { Framing::Sse };
        Ok(shared::post(self.signed(signing)?, HeaderMap::new(), &body(model, request)?, framing))
    }

    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode> {
        Box::new(Reader::new(request.whole, matches!(self.credential, Credential::Pair(..))))
    }

    fn embed(&self, request: &EmbeddingRequest, signing: &Signing<'_>) -> Result<Outbound> {
        if !matches!(self.what, What::Embeddings) {
            let message = format!("'{}' makes no embeddings; set saas.model to Embedding-V1", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        if request.dimensions.is_some() {
            return Err(crate::refusal::refuse("dimensions", "qianfan"));
        }
        let mut body = request.extra.clone();
        body.insert("input".to_owned(), json!(shared::texts("qianfan", request)?));
        Ok(shared::post(self.signed(signing)?, HeaderMap::new(), &Value::Object(body), Framing::Whole))
    }

    fn embedding_batch(&self) -> usize {
        if self.model.eq_ignore_ascii_case("tao-8k") { 1 } else { 16 }
    }

    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        let body = shared::json(NAME, &String::from_utf8_lossy(body))?;
        if body.get("error_code").is_some() {
            return Err(self.error(200, &HeaderMap::new(), body.to_string().as_bytes()));
        }
        let mut items: Vec<&Value> =
            body.get("data").and_then(Value::as_array).into_iter().flatten().collect();
        items.sort_by_key(|item| item.get("index").and_then(Value::as_u64));
        let vectors = items
            .iter()
            .map(|item| shared::vector(NAME, item.get("embedding")))
            .collect::<Result<Vec<_>>>()?;
        let usage = match count_at(&body, "/usage/prompt_tokens") {
            Some(tokens) => shared::reported(tokens, 0),
            None => Usage { source: UsageSource::Unknown, ..Usage::default() },
        };
        Ok(Embeddings { vectors, usage, notices: Vec::new() })
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let exchanged = matches!(self.credential, Credential::Pair(..));
        let id = header(headers, &["x-baidu-request-id", "x-bce-request-id"]);
        error(status, &value, exchanged, id, retry_after(headers))
    }
}

/// Reads `{"access_token", "expires_in"}`.
fn read(body: &[u8]) -> Result<(Secret, u64)> {
    let body = shared::json(NAME, &String::from_utf8_lossy(body))?;
    let token = text_at(&body, "/access_token");
    if token.is_empty() {
        return Err(error(200, &body, false, None, None));
    }
    Ok((Secret::new(token), body.get("expires_in").and_then(Value::as_u64).unwrap_or(3600)))
}

fn body(model: Model, request: &ChatRequest) -> Result<Value> {
    let messages = shared::conversation("qianfan", request)?;
    let (system, rest) = shared::split_system(&messages);
    let s = &request.sampling;
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("messages", Some(turns(&rest)?));
    put("system", system.map(Value::from));
    put("stream", Some(json!(!request.whole)));
    if let Some(temperature) = s.temperature {
        if !(temperature > 0.0 && temperature <= 1.0) {
            let message = format!("Qianfan's temperature is above 0 and at most 1, got {temperature}");
            return Err(Error::invalid("temperature", message));
        }
        put("temperature", Some(decimal(temperature)));
    }
    put("top_p", s.top_p.map(decimal));
    put("top_k", s.top_k.filter(|k| *k > 0).map(Value::from));
    put("max_output_tokens", s.max_tokens.filter(|_| model.has_bound()).map(Value::from));
    put("presence_penalty", s.presence_penalty.filter(|p| *p != 0.0).map(decimal));
    put("frequency_penalty", s.frequency_penalty.filter(|p| *p != 0.0).map(decimal));
    if let Some(penalty) = s.repetition_penalty.filter(|penalty| *penalty != 1.0) {
        if !(1.0..=2.0).contains(&penalty) {
            let message = format!("Qianfan's repetition_penalty is between 1 and 2, got {penalty}");
            return Err(Error::invalid("repetition_penalty", message));
        }
        put("penalty_score", Some(decimal(penalty)));
    }
    if let Some(stop) = s.stop.as_ref().filter(|stop| !stop.is_empty()) {
        if stop.len() > 4 || stop.iter().any(|text| text.chars().count() > 20) {
            return Err(Error::invalid(
                "stop",
                "Qianfan takes at most 4 stop strings of at most 20 characters",
            ));
        }
        put("stop", Some(json!(stop)));
    }
    if request.format == ResponseFormat::JsonObject {
        put("response_format", Some(json!("json_object")));
    }
    if !request.tools.is_empty() {
        put("functions", Some(request.tools.iter().map(shared::function).collect()));
        match &request.tool_choice {
            ToolChoice::Auto => {}
            ToolChoice::Named(name) => {
                put("tool_choice", Some(json!({"type": "function", "function": {"name": name}})));
            }
            ToolChoice::None | ToolChoice::Required => {
                let message = "Qianfan lets the model choose or takes the name of a function: leave tool_choice out, or name one";
                return Err(Error::new(ErrorKind::Unsupported, message).with_param("tool_choice"));
            }
        }
    }
    for (name, value) in &request.extra {
        put(name, Some(value.clone()));
    }
    Ok(Value::Object(out))
}

/// The conversation, in which user and assistant alternate and the user has the last word. Neighbours of one role
/// become one message, a line each.
fn turns(messages: &[&Message]) -> Result<Value> {
    let mut turns: Vec<Map<String, Value>> = Vec::new();
    let mut last = None;
    for (position, message) in messages.iter().enumerate() {
        let calls = shared::calls(message)?;
        let same = last == Some(message.role) && calls.is_empty() && message.role != Role::Tool;
        if let Some(before) = turns.last_mut().filter(|before| same && !before.contains_key("function_call"))
        {
            let text = format!("{}\n{}", before["content"].as_str().unwrap_or_default(), message.content);
            before.insert("content".to_owned(), json!(text));
            continue;
        }
        last = Some(message.role);
        let role = if message.role == Role::Tool { "function" } else { message.role.as_str() };
        let mut turn = Map::from_iter([
            ("role".to_owned(), json!(role)),
            ("content".to_owned(), json!(message.content)),
        ]);
        match calls.as_slice() {
            [] => {}
            [call] => {
                let function = json!({"name": call.name, "arguments": call.arguments_text()});
                turn.insert("function_call".to_owned(), function);
            }
            _ => {
                let message = "Qianfan knows one function call per message, and these messages hold more";
                return Err(Error::new(ErrorKind::Unsupported, message).with_param("messages"));
            }
        }
        if message.role == Role::Tool {
            turn.insert("name".to_owned(), json!(shared::function_of(message, &messages[..position])?));
        }
        turns.push(turn);
    }
    let role = |turn: Option<&Map<String, Value>>| {
        turn.map(|turn| turn["role"].as_str().unwrap_or_default().to_owned())
    };
    if role(turns.first()).as_deref() != Some("user") {
        return Err(Error::invalid(
            "messages",
            "a conversation with Qianfan begins with a message of the user",
        ));
    }
    if role(turns.last()).as_deref() == Some("assistant") {
        return Err(Error::invalid(
            "messages",
            "a conversation with Qianfan ends with a message of the user or of a tool",
        ));
    }
    Ok(Value::from(turns.into_iter().map(Value::Object).collect::<Vec<_>>()))
}
