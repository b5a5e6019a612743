//! `saas/sparkdesk`: iFLYTEK Spark, over a signed WebSocket.
//!
//! Source: iFLYTEK open platform, "Spark WebSocket API" (<https://www.xfyun.cn/doc/spark/Web.html>), "Service description"
//! with its error codes, "URL authentication"; `spark-ai-python` 0.4.5, `llm/llm.py`.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use byzerllm_core::{
    ChatRequest, Error, ErrorKind, FinishReason, GenerationDefaults, Message, Result, Role, ToolCallDelta,
    Usage,
};
use http::{HeaderMap, Method};
use ring::hmac;
use serde_json::{Map, Value, json};
use url::{Position, Url};

use crate::dialects::openai::{Meaning, retry_after};
use crate::dialects::shared::{self, Refusal, count_at, decimal, text_at};
use crate::refusal::header;
use crate::{
    Decode, Delta, Dialect, Features, Frame, Framing, Kind, Outbound, Parameter, Parameters, Secret, Signing,
    Vendor,
};

/// The vendor's name for people.
const NAME: &str = "Spark";
const CREDENTIALS: &str = "saas.appid, saas.api_key and saas.api_secret, and this machine's clock";
const HOST: &str = "wss://spark-api.xf-yun.com";
const DEFAULT_DOMAIN: &str = "generalv3";

const TAKES: &[&str] = &["temperature", "top_k", "max_tokens", "tools"];
const EXTRA: &[&str] = &["uid", "chat_id", "auditing", "patch_id"];

/// Versions of the API by their path, and the domains that each has; the first is taken when none is named.
const VERSIONS: &[(&str, &[&str])] = &[
    ("/v1.1/chat", &["general", "lite"]),
    ("/v2.1/chat", &["generalv2"]),
    ("/v3.1/chat", &["generalv3"]),
    ("/v3.5/chat", &["generalv3.5"]),
    ("/v4.0/chat", &["4.0Ultra"]),
    ("/chat/pro-128k", &["pro-128k"]),
    ("/chat/max-32k", &["max-32k"]),
    ("/v1/x1", &["x1"]),
];
/// Domains that know no functions.
const WITHOUT_FUNCTIONS: &[&str] = &["general", "lite", "generalv2", "x1"];

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "sparkdesk",
    aliases: &["spark"],
    title: "iFLYTEK Spark",
    documentation: "https://www.xfyun.cn/doc/spark/Web.html",
    parameters: &[
        Parameter::new("appid", Kind::Text, "The application's id").required().also(&["app_id"]),
        Parameter::new("api_key", Kind::Secret, "The application's APIKey").required(),
        Parameter::new("api_secret", Kind::Secret, "The application's APISecret").required(),
        Parameter::new(
            "gpt_url",
            Kind::Url,
            "The whole address of a version, like wss://spark-api.xf-yun.com/v3.5/chat",
        ),
        Parameter::new("domain", Kind::Text, "The model; without one, that of the address").also(&["model"]),
        Parameter::new("debug", Kind::Flag, "Of old programs; without effect"),
    ],
    open: |parameters| Ok(Arc::new(Spark::open(parameters)?) as Arc<dyn Dialect>),
};

struct Spark {
    app: String,
    key: Secret,
    secret: Secret,
    url: Url,
    domain: String,
}

impl Spark {
    fn open(parameters: &Parameters) -> Result<Self> {
        let (url, domain) = place(parameters)?;
        Ok(Self {
            app: parameters.text("appid").to_owned(),
            key: shared::secret(parameters, "sparkdesk", "api_key")?,
            secret: shared::secret(parameters, "sparkdesk", "api_secret")?,
            url,
            domain,
        })
    }

    /// The address with the signature in its query: HMAC-SHA256 over host, date and request line.
    fn signed(&self, now: SystemTime) -> Url {
        let host = &self.url[Position::BeforeHost..Position::AfterPort];
        let date = httpdate::fmt_http_date(now);
        let text = format!("host: {host}\ndate: {date}\nGET {} HTTP/1.1", self.url.path());
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose().as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        let authorization = format!(
            r#"api_key="{}", algorithm="hmac-sha256", headers="host date request-line", signature="{signature}""#,
            self.key.expose()
        );
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("authorization", &STANDARD.encode(authorization))
            .append_pair("date", &date)
            .append_pair("host", host);
        url
    }

    fn functions(&self) -> bool {
        !WITHOUT_FUNCTIONS.contains(&self.domain.as_str())
    }
}

/// The address and the domain: either one says the other, and both must belong together.
fn place(parameters: &Parameters) -> Result<(Url, String)> {
    let domain = parameters.optional_text("domain");
    let of_domain =
        |domain: &str| VERSIONS.iter().find(|(_, domains)| domains.contains(&domain)).map(|(path, _)| *path);
    let Some(url) = parameters.url("gpt_url") else {
        let domain = domain.unwrap_or(DEFAULT_DOMAIN);
        let path = of_domain(domain).ok_or_else(|| {
            let all: Vec<&str> = VERSIONS.iter().flat_map(|(_, domains)| domains.iter().copied()).collect();
            let message =
                format!("saas.domain '{domain}' needs saas.gpt_url; known without it: {}", all.join(", "));
            Error::invalid("saas.domain", message)
        })?;
        let base = parameters.url("base_url").map_or(HOST, Url::as_str).trim_end_matches('/');
        let url = Url::parse(&format!("{base}{path}"));
        let url = url.map_err(|_| Error::invalid("saas.base_url", "saas.base_url is no base of a URL"))?;
        return Ok((socket(&url)?, domain.to_owned()));
    };
    let url = &socket(url)?;
    if parameters.url("base_url").is_some() {
        return Err(Error::invalid("saas.base_url", "give saas.gpt_url or saas.base_url, not both"));
    }
    let path = url.path().trim_end_matches('/');
    let version = VERSIONS.iter().find(|(known, _)| path.ends_with(known));
    match (version, domain) {
        (Some((_, domains)), None) => {
            Ok((url.clone(), domains.first().copied().unwrap_or_default().to_owned()))
        }
        // A domain that nobody knows may be a model of one's own; one of another version is a mistake.
        (Some((_, domains)), Some(domain)) if domains.contains(&domain) || of_domain(domain).is_none() => {
            Ok((url.clone(), domain.to_owned()))
        }
        (Some((path, domains)), Some(domain)) => {
            let right = domains.join(" or ");
            let other = of_domain(domain).unwrap_or_default();
            let message = format!(
                "saas.domain '{domain}' does not belong to a saas.gpt_url that ends with {path}: its domain is {right}; \
                 '{domain}' belongs to {other}"
            );
            Err(Error::invalid("saas.domain", message))
        }
        (None, Some(domain)) => Ok((url.clone(), domain.to_owned())),
        (None, None) => {
            let message = "this saas.gpt_url is of no version that says its domain: set saas.domain";
            Err(Error::invalid("saas.domain", message))
        }
    }
}

/// The same address for a WebSocket, also where it is written as one of HTTP.
fn socket(url: &Url) -> Result<Url> {
    let text = match url.as_str().strip_prefix("http") {
        Some(rest) => format!("ws{rest}"),
        None => url.as_str().to_owned(),
    };
    Url::parse(&text)
        .map_err(|_| Error::invalid("saas.gpt_url", "saas.gpt_url must begin with wss:// or ws://"))
}

impl Dialect for Spark {
    fn features(&self) -> Features {
        let reasoning = self.domain == "x1";
        Features {
            chat: true,
            stream: true,
            tools: self.functions(),
            usage: true,
            reasoning,
            ..Features::default()
        }
    }

    fn model(&self) -> &str {
        &self.domain
    }

    fn base_url(&self) -> Option<&Url> {
        Some(&self.url)
    }

    /// There is no `top_p`.
    fn defaults(&self) -> GenerationDefaults {
        GenerationDefaults { top_p: Some(1.0), ..GenerationDefaults::default() }
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        EXTRA
    }

    fn chat(&self, request: &ChatRequest, signing: &Signing<'_>) -> Result<Outbound> {
        shared::refuse_others("sparkdesk", request, TAKES)?;
        if !request.tools.is_empty() && !self.functions() {
            let message =
                format!("Spark's '{}' knows no functions; leave out tools, or deploy 4.0Ultra", self.domain);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("tools"));
        }
        let messages = shared::conversation("sparkdesk", request)?;
        let text = turns(&messages)?;
        let mut header = Map::from_iter([("app_id".to_owned(), json!(self.app))]);
        let mut chat = self.parameters(request)?;
        for (name, value) in &request.extra {
            let place = if matches!(name.as_str(), "uid" | "patch_id") { &mut header } else { &mut chat };
            place.insert(name.clone(), value.clone());
        }
        let mut payload = json!({"message": {"text": text}});
        if !request.tools.is_empty() {
            let functions: Vec<Value> = request.tools.iter().map(shared::function).collect();
            payload["functions"] = json!({"text": functions});
        }
        let body = json!({"header": header, "parameter": {"chat": chat}, "payload": payload});
        Ok(Outbound {
            method: Method::GET,
            url: self.signed(signing.now),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_string()),
            framing: Framing::WebSocket,
        })
    }

    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode> {
        Box::new(Reader { bound: request.sampling.max_tokens, last: None, called: false, over: false })
    }

    /// The handshake's answer: `{"message"}`.
    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        if value.get("header").is_some() {
            return error(&value);
        }
        Refusal {
            vendor: NAME,
            status,
            meaning: None,
            message: text_at(&value, "/message"),
            credentials: CREDENTIALS,
            request_id: header(headers, &["sid", "x-request-id"]),
            retry_after: retry_after(headers),
        }
        .error()
    }
}

impl Spark {
    fn parameters(&self, request: &ChatRequest) -> Result<Map<String, Value>> {
        let s = &request.sampling;
        let mut chat = Map::from_iter([("domain".to_owned(), json!(self.domain))]);
        if let Some(temperature) = s.temperature {
            if !(temperature > 0.0 && temperature <= 1.0) {
                let message = format!("Spark's temperature is above 0 and at most 1, got {temperature}");
                return Err(Error::invalid("temperature", message));
            }
            chat.insert("temperature".to_owned(), decimal(temperature));
        }
        if let Some(top_k) = s.top_k.filter(|k| *k > 0) {
            if top_k > 6 {
                return Err(Error::invalid("top_k", format!("Spark's top_k is at most 6, got {top_k}")));
            }
            chat.insert("top_k".to_owned(), json!(top_k));
        }
        if let Some(max) = s.max_tokens {
            chat.insert("max_tokens".to_owned(), json!(max));
        }
        Ok(chat)
    }
}

/// The conversation: one system message first, then user and assistant in turns. Neighbours of one role become one
/// message, a line each.
fn turns(messages: &[Message]) -> Result<Vec<Value>> {
    let (system, rest) = shared::split_system(messages);
    let mut turns: Vec<Value> = Vec::new();
    turns.extend(system.map(|text| json!({"role": "system", "content": text})));
    for message in rest {
        let calls = shared::calls(message)?;
        let role = message.role.as_str();
        let before = turns.last_mut().filter(|before| {
            before["role"] == role
                && before.get("function_call").is_none()
                && calls.is_empty()
                && role != "tool"
        });
        if let Some(before) = before {
            let text = format!("{}\n{}", text_at(before, "/content"), message.content);
            before["content"] = json!(text);
            continue;
        }
        let mut turn = json!({"role": role, "content": message.content});
        match calls.as_slice() {
            [] => {}
            [call] if message.role == Role::Assistant => {
                turn["function_call"] = json!({"name": call.name, "arguments": call.arguments_text()});
            }
            _ => {
                let message = "Spark knows one function call per message, and these messages hold more";
                return Err(Error::new(ErrorKind::Unsupported, message).with_param("messages"));
            }
        }
        turns.push(turn);
    }
    Ok(turns)
}

/// Maps `header.code`, which is 0 when all is well.
fn error(frame: &Value) -> Error {
    let code = frame.pointer("/header/code").and_then(Value::as_i64).unwrap_or(-1);
    let message = text_at(frame, "/header/message");
    let meaning = match code {
        10_003..=10_005 | 10_163 => Meaning::Invalid,
        10_006 | 10_007 | 11_201..=11_203 => Meaning::RateLimited,
        10_008 | 10_110 => Meaning::Overloaded,
        10_013 | 10_014 | 10_019 | 10_021 => Meaning::Filtered,
        10_015 | 10_016 | 11_200 => Meaning::Permission,
        10_313 => Meaning::Credential,
        10_907 => Meaning::TooLarge,
        _ => Meaning::Failed,
    };
    Refusal {
        vendor: NAME,
        status: 0,
        meaning: Some(meaning),
        message: &format!("{code}: {message}"),
        credentials: CREDENTIALS,
        request_id: Some(text_at(frame, "/header/sid")),
        retry_after: None,
    }
    .error()
}

struct Reader {
    /// The bound of new tokens: the API does not say why an answer ended.
    bound: Option<u32>,
    /// The last frame and its number, to know it when it comes twice.
    last: Option<(u64, String)>,
    called: bool,
    over: bool,
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let value = shared::json(NAME, frame.data)?;
        if value.pointer("/header/code").and_then(Value::as_i64) != Some(0) {
            return Err(error(&value));
        }
        let sid = text_at(&value, "/header/sid");
        if !sid.is_empty() {
            out.push(Delta::RequestId(sid.to_owned()));
        }
        let seq = value.pointer("/payload/choices/seq").and_then(Value::as_u64);
        let again = self.last.as_ref().is_some_and(|(last, data)| seq == Some(*last) && data == frame.data);
        if self.over || again {
            return Ok(());
        }
        self.last = seq.map(|seq| (seq, frame.data.to_owned()));
        for piece in value.pointer("/payload/choices/text").and_then(Value::as_array).into_iter().flatten() {
            self.piece(piece, sid, out);
        }
        let ended = [value.pointer("/payload/choices/status"), value.pointer("/header/status")];
        if ended.iter().flatten().any(|status| status.as_u64() == Some(2)) {
            self.over = true;
            let usage = value.pointer("/payload/usage/text").and_then(usage);
            let cut =
                self.bound.zip(usage.as_ref()).is_some_and(|(bound, usage)| usage.completion_tokens >= bound);
            let reason = match (self.called, cut) {
                (true, _) => FinishReason::ToolCalls,
                (false, true) => FinishReason::Length,
                (false, false) => FinishReason::Stop,
            };
            out.push(Delta::Finished(0, reason));
            out.extend(usage.map(Delta::Usage));
            out.push(Delta::End);
        }
        Ok(())
    }
}

impl Reader {
    fn piece(&mut self, piece: &Value, sid: &str, out: &mut Vec<Delta>) {
        let reasoning = text_at(piece, "/reasoning_content");
        if !reasoning.is_empty() {
            out.push(Delta::Reasoning(0, reasoning.to_owned()));
        }
        let text = text_at(piece, "/content");
        if !text.is_empty() {
            out.push(Delta::Text(0, text.to_owned()));
        }
        let call = piece.get("function_call").filter(|call| call.is_object() && !self.called);
        if let Some(call) = call {
            // It comes whole and without an id.
            self.called = true;
            let arguments = text_at(call, "/arguments");
            let arguments = if arguments.is_empty() { "{}" } else { arguments }.to_owned();
            let (id, name) = (Some(format!("call-{sid}")), Some(text_at(call, "/name").to_owned()));
            out.push(Delta::ToolCall(0, ToolCallDelta { index: 0, id, name, arguments }));
        }
    }
}

fn usage(value: &Value) -> Option<Usage> {
    let prompt = count_at(value, "/prompt_tokens")?;
    Some(shared::reported(prompt, count_at(value, "/completion_tokens").unwrap_or_default()))
}
