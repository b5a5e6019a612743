//! A vendor as small as a vendor can be, and what tests need around it.

use std::sync::{Arc, Mutex};

use byzerllm_core::{
    Accounting, Attempt, ChatModel, ChatRequest, EmbeddingInput, EmbeddingRequest, Embeddings, Ending, Error,
    ErrorKind, Event, FinishReason, Input, RequestContext, Reservation, Result, Settlement, ToolCallDelta,
    Usage,
};
use byzerllm_providers::refusal::kind_of;
use byzerllm_providers::{
    Decode, Delta, Dialect, Features, Frame, Framing, Kind, Outbound, Parameter, Parameters, ProviderModel,
    Secret, Signing, TokenRequest, Vendor,
};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use url::Url;

pub(crate) const KEY: &str = "canary-7d1f.4b9c2e8a6f3d";

/// One that streams, embeds in batches of two, and knows one parameter of its own.
pub(crate) static MINI: Vendor = Vendor {
    name: "mini",
    aliases: &[],
    title: "A vendor of the tests",
    documentation: "none",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The key").required(),
        Parameter::new("form", Kind::Choice(&["sse", "whole", "socket"]), "How answers come").or("sse"),
        Parameter::new("token", Kind::Flag, "Whether a token is fetched").or("false"),
    ],
    open: |parameters| {
        let framing = match parameters.text("form") {
            "whole" => Framing::Whole,
            "socket" => Framing::WebSocket,
            _ => Framing::Sse,
        };
        let url = parameters.url("base_url").cloned().unwrap();
        let key = parameters.secret("api_key").cloned().unwrap();
        Ok(Arc::new(Mini { url, key, framing, token: parameters.flag("token") }))
    },
};

struct Mini {
    url: Url,
    key: Secret,
    framing: Framing,
    token: bool,
}

impl Mini {
    fn outbound(&self, path: &str, body: &Value, signing: &Signing<'_>, framing: Framing) -> Outbound {
        let mut url = self.url.clone();
        url.set_path(&format!("/v1/{path}"));
        let credential = signing.token.unwrap_or(&self.key).expose();
        let mut value = HeaderValue::from_str(&format!("Bearer {credential}")).unwrap();
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value);
        Outbound { method: Method::POST, url, headers, body: body.to_string().into(), framing }
    }
}

impl Dialect for Mini {
    fn features(&self) -> Features {
        Features {
            chat: true,
            stream: true,
            usage: true,
            embeddings: true,
            reasoning: true,
            ..Features::default()
        }
    }

    fn model(&self) -> &str {
        "mini-1"
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        &["flavour"]
    }

    fn token(&self) -> Option<TokenRequest> {
        if !self.token {
            return None;
        }
        let signing = Signing { now: std::time::SystemTime::UNIX_EPOCH, token: None };
        let outbound = self.outbound("token", &json!({}), &signing, Framing::Whole);
        let read = |body: &[u8]| {
            let value: Value = serde_json::from_slice(body).unwrap();
            Ok((Secret::new(value["token"].as_str().unwrap()), 3600))
        };
        Some(TokenRequest { outbound, read })
    }

    fn chat(&self, request: &ChatRequest, signing: &Signing<'_>) -> Result<Outbound> {
        let prompt = match &request.input {
            Input::Text(text) => text.clone(),
            Input::Messages(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
            Input::Tokens(_) => return Err(byzerllm_providers::refusal::refuse("prompt_token_ids", "mini")),
        };
        let body = json!({ "prompt": prompt, "n": request.n, "max_tokens": request.sampling.max_tokens });
        let framing = if request.whole { Framing::Whole } else { self.framing };
        Ok(self.outbound("chat", &body, signing, framing))
    }

    fn decoder(&self, _request: &ChatRequest) -> Box<dyn Decode> {
        Box::new(Reader)
    }

    fn embed(&self, request: &EmbeddingRequest, signing: &Signing<'_>) -> Result<Outbound> {
        let texts: Vec<&str> = request
            .inputs
            .iter()
            .map(|input| match input {
                EmbeddingInput::Text(text) => text.as_str(),
                EmbeddingInput::Tokens(_) => "",
            })
            .collect();
        Ok(self.outbound("embed", &json!(texts), signing, Framing::Whole))
    }

    fn embedding_batch(&self) -> usize {
        2
    }

    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        let value: Value = serde_json::from_slice(body).map_err(|_| odd())?;
        let vectors = serde_json::from_value(value["vectors"].clone()).map_err(|_| odd())?;
        let prompt_tokens = value["tokens"].as_u64().unwrap_or_default() as u32;
        Ok(Embeddings { vectors, usage: Usage { prompt_tokens, ..Usage::default() }, notices: Vec::new() })
    }

    fn error(&self, status: u16, _headers: &HeaderMap, body: &[u8]) -> Error {
        Error::new(kind_of(status), format!("mini says {status}: {}", String::from_utf8_lossy(body)))
    }
}

/// Reads `{"text"|"reasoning"|"call"|"finish"|"usage"|"id"|"error": …, "choice": n}`, several in an array, or `[DONE]`.
struct Reader;

fn odd() -> Error {
    Error::new(ErrorKind::Upstream, "mini sent something odd")
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if frame.data == "[DONE]" {
            out.push(Delta::End);
            return Ok(());
        }
        let value: Value = serde_json::from_str(frame.data).map_err(|_| odd())?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| read(item, out)),
            item => read(&item, out),
        }
    }
}

fn read(item: &Value, out: &mut Vec<Delta>) -> Result<()> {
    let choice = item["choice"].as_u64().unwrap_or_default() as u32;
    let text = |name: &str| item[name].as_str().map(str::to_owned);
    let fields = item.as_object().ok_or_else(odd)?;
    for (name, value) in fields {
        out.push(match name.as_str() {
            "text" => Delta::Text(choice, text("text").ok_or_else(odd)?),
            "reasoning" => Delta::Reasoning(choice, text("reasoning").ok_or_else(odd)?),
            "call" => {
                let arguments = text("call").ok_or_else(odd)?;
                Delta::ToolCall(
                    choice,
                    ToolCallDelta { index: 0, id: None, name: Some("f".to_owned()), arguments },
                )
            }
            "finish" if value == "length" => Delta::Finished(choice, FinishReason::Length),
            "finish" => Delta::Finished(choice, FinishReason::Stop),
            "usage" => Delta::Usage(Usage {
                prompt_tokens: value[0].as_u64().unwrap_or_default() as u32,
                completion_tokens: value[1].as_u64().unwrap_or_default() as u32,
                ..Usage::default()
            }),
            "id" => Delta::RequestId(text("id").ok_or_else(odd)?),
            "error" => {
                let status = value["status"].as_u64().unwrap_or(500) as u16;
                let message = value["message"].as_str().unwrap_or_default().to_owned();
                return Err(Error::new(kind_of(status), message));
            }
            _ => continue,
        });
    }
    Ok(())
}

/// A model of the mini vendor at `url`, with further parameters.
pub(crate) fn open(url: &str, further: &[(&str, &str)]) -> Arc<ProviderModel> {
    let mut given = vec![("api_key", KEY), ("base_url", url)];
    given.extend_from_slice(further);
    let parameters = Parameters::new(&MINI, given).unwrap();
    ProviderModel::open(&MINI, "m", &parameters).unwrap()
}

pub(crate) fn request() -> ChatRequest {
    ChatRequest::new("m", Input::Text("Hello".to_owned()))
}

pub(crate) const TEXT: &str = r#"{"text":"Hé"}"#;
pub(crate) const MORE: &str = r#"{"text":"llo"}"#;
pub(crate) const STOP: &str = r#"{"finish":"stop"}"#;
pub(crate) const USAGE: &str = r#"{"usage":[3,2]}"#;
pub(crate) const DONE: &str = "[DONE]";

/// The items of a request's answer, or its refusal as the only one.
pub(crate) async fn ask(
    model: &ProviderModel,
    request: ChatRequest,
    context: RequestContext,
) -> Vec<Result<Event>> {
    let choices = request.n;
    match model.chat(request, context).await {
        Ok(stream) => byzerllm_core::testing::checked(stream, choices).collect().await,
        Err(error) => vec![Err(error)],
    }
}

/// The text, and the error if it did not end well.
pub(crate) fn text(items: &[Result<Event>]) -> (String, Option<&Error>) {
    let mut all = String::new();
    for item in items {
        match item {
            Ok(Event::Text { text, .. }) => all.push_str(text),
            Ok(_) => {}
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

/// The only error of an answer without any event.
pub(crate) fn refusal(items: &[Result<Event>]) -> &Error {
    match items {
        [Err(error)] => error,
        other => panic!("{other:?}"),
    }
}

/// A ledger that remembers everything.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) attempts: Mutex<Vec<Attempt>>,
    pub(crate) settled: Arc<Mutex<Vec<Option<Settlement>>>>,
    pub(crate) refuse: Option<ErrorKind>,
}

impl Ledger {
    pub(crate) fn context(self: &Arc<Self>) -> RequestContext {
        RequestContext {
            accounting: Some(Arc::clone(self) as Arc<dyn Accounting>),
            ..RequestContext::local()
        }
    }

    /// How the attempts ended; `Dropped` for a reservation that nobody settled.
    pub(crate) fn endings(&self) -> Vec<Ending> {
        let settled = self.settled.lock().unwrap();
        settled.iter().map(|one| one.as_ref().map_or(Ending::Dropped, |one| one.ending.clone())).collect()
    }

    pub(crate) fn settlements(&self) -> Vec<Settlement> {
        self.settled.lock().unwrap().iter().flatten().cloned().collect()
    }
}

#[async_trait::async_trait]
impl Accounting for Ledger {
    async fn begin(&self, attempt: Attempt) -> Result<Box<dyn Reservation>> {
        if let Some(kind) = self.refuse {
            return Err(Error::new(kind, "the budget is spent"));
        }
        self.attempts.lock().unwrap().push(attempt);
        Ok(Box::new(Open { settled: Some(Arc::clone(&self.settled)) }))
    }
}

struct Open {
    settled: Option<Arc<Mutex<Vec<Option<Settlement>>>>>,
}

impl Reservation for Open {
    fn settle(mut self: Box<Self>, settlement: Settlement) {
        self.settled.take().unwrap().lock().unwrap().push(Some(settlement));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(settled) = self.settled.take() {
            settled.lock().unwrap().push(None);
        }
    }
}
