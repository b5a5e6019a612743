//! A model that plays given events, for answers that a scripted model has not: calls, thoughts, notices, vendors' ids.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::http::Method;
use byzerllm_core::testing::{ScriptedModel, checked};
use byzerllm_core::{
    ChatModel, ChatRequest, Error, ErrorKind, Event, EventStream, FinishReason, Message, ModelHandle, Notice,
    RequestContext, Result, ToolCallDelta, Usage,
};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{
    DeploymentSpec, Inspection, LoadContext, LoadedModel, Loader, MemoryNeed, Runtime, RuntimeOptions, Worker,
};
use byzerllm_server::router;
use futures::{StreamExt, stream};
use serde_json::Value;

use crate::support::{Answer, App, options, request};

type Play = dyn Fn() -> Vec<Result<Event>> + Send + Sync;

pub(crate) struct Played {
    play: Box<Play>,
    extra: &'static [&'static str],
    continuation: Option<&'static str>,
    seen: Mutex<Vec<(ChatRequest, RequestContext)>>,
}

impl Played {
    /// A model that answers with these events, between its start and its usage.
    pub(crate) fn new(play: impl Fn() -> Vec<Result<Event>> + Send + Sync + 'static) -> Self {
        Self { play: Box::new(play), extra: &[], continuation: None, seen: Mutex::default() }
    }

    pub(crate) fn declaring(self, extra: &'static [&'static str]) -> Self {
        Self { extra, ..self }
    }

    pub(crate) fn continuing(self, field: &'static str) -> Self {
        Self { continuation: Some(field), ..self }
    }

    /// A gateway with it as `chat`.
    pub(crate) async fn serve(self) -> (Arc<Self>, App) {
        let model = Arc::new(self);
        let loader = Arc::new(PlayedLoader(model.clone()));
        let options_ = RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() };
        let runtime = Runtime::open_with(options_, loader).await.unwrap();
        runtime.deploy(DeploymentSpec::new("chat", "/")).await.unwrap();
        let router = router(runtime.clone(), &options());
        let (silent, loader) = (Arc::new(ScriptedModel::new("")), ScriptedLoader::answering(""));
        (model, App { model: silent, loader, runtime, router })
    }

    /// The last request and its context.
    pub(crate) fn last(&self) -> (ChatRequest, RequestContext) {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

#[async_trait::async_trait]
impl ChatModel for Played {
    async fn chat(&self, request: ChatRequest, context: RequestContext) -> Result<EventStream> {
        let n = request.n;
        let started =
            Event::Started { request_id: context.id.clone(), vendor_request_id: Some("vendor-1".to_owned()) };
        self.seen.lock().unwrap().push((request, context));
        let events = std::iter::once(Ok(started)).chain((self.play)());
        Ok(checked(stream::iter(events.collect::<Vec<_>>()).boxed(), n))
    }

    fn apply_template(&self, _: &[Message], _: bool) -> Result<String> {
        Err(Error::new(ErrorKind::Unsupported, "the vendor renders"))
    }

    fn tokenize(&self, _: &str) -> Result<Vec<u32>> {
        Err(Error::new(ErrorKind::Unsupported, "the vendor counts"))
    }

    fn extra_parameters(&self) -> &[&'static str] {
        self.extra
    }

    fn continuation(&self) -> Option<&'static str> {
        self.continuation
    }
}

struct PlayedLoader(Arc<Played>);

impl Loader for PlayedLoader {
    fn need(&self, _: &DeploymentSpec) -> Result<MemoryNeed> {
        Ok(MemoryNeed::default())
    }

    fn load(&self, _: &DeploymentSpec, _: &LoadContext) -> Result<LoadedModel> {
        let chat: Arc<dyn ChatModel> = self.0.clone();
        let handle = ModelHandle {
            info: Arc::default(),
            defaults: Default::default(),
            chat: Some(chat),
            embed: None,
            rerank: None,
        };
        Ok(LoadedModel { handle, worker: Arc::new(Idle) })
    }

    fn inspect(&self, _: &Path) -> Result<Inspection> {
        Err(Error::internal("nothing is inspected here"))
    }
}

struct Idle;

#[async_trait::async_trait]
impl Worker for Idle {
    async fn probe(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    fn shutdown(&self) {}
}

pub(crate) fn text(text: &str) -> Result<Event> {
    Ok(Event::Text { choice: 0, text: text.to_owned(), logprobs: None })
}

pub(crate) fn thought(text: &str) -> Result<Event> {
    Ok(Event::Reasoning { choice: 0, text: text.to_owned() })
}

/// A piece of a call; the first one of a call has its id.
pub(crate) fn call(index: u32, id: Option<&str>, arguments: &str) -> Result<Event> {
    let name = id.map(|_| "weather".to_owned());
    let delta = ToolCallDelta { index, id: id.map(str::to_owned), name, arguments: arguments.to_owned() };
    Ok(Event::ToolCall { choice: 0, delta })
}

pub(crate) fn notice(notice: Notice) -> Result<Event> {
    Ok(Event::Notice { notice })
}

pub(crate) fn end(reason: FinishReason) -> Result<Event> {
    Ok(Event::Finished { choice: 0, reason, stop: None })
}

pub(crate) fn usage() -> Result<Event> {
    let usage = Usage {
        prompt_tokens: 20,
        cached_tokens: 8,
        cache_written_tokens: 2,
        completion_tokens: 7,
        reasoning_tokens: 3,
        ..Usage::default()
    };
    Ok(Event::Usage { usage })
}

/// Thoughts, text and two calls.
pub(crate) fn rich() -> Vec<Result<Event>> {
    vec![
        thought("Rain"),
        thought("?"),
        text("One "),
        text("moment."),
        call(0, Some("c1"), ""),
        call(0, None, "{\"city\": "),
        call(0, None, "\"Paris\"}"),
        call(1, Some("c2"), "{}"),
        end(FinishReason::ToolCalls),
        usage(),
    ]
}

/// A failure after some text.
pub(crate) fn broken() -> Vec<Result<Event>> {
    let error = Error::new(ErrorKind::Upstream, "the vendor broke off").with_vendor_request_id("vendor-1");
    vec![text("Hel"), Err(error.with_usage(Usage::default()))]
}

/// The body with what differs from run to run replaced.
pub(crate) fn plain(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    masked(serde_json::from_str(&without_id(answer, &answer.text)).unwrap())
}

/// The events of a stream: name and data.
pub(crate) fn events(answer: &Answer) -> Vec<(String, Value)> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = without_id(answer, &answer.text);
    text.split_terminator("\n\n")
        .map(|frame| {
            let fields: BTreeMap<&str, &str> =
                frame.lines().filter_map(|line| line.split_once(": ")).collect();
            (fields["event"].to_owned(), masked(serde_json::from_str(fields["data"]).unwrap()))
        })
        .collect()
}

fn without_id(answer: &Answer, text: &str) -> String {
    text.replace(answer.header("x-request-id").unwrap(), "ID")
}

fn masked(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields {
                *field = if name == "created_at" { "TIME".into() } else { masked(field.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = masked(item.take())),
        _ => {}
    }
    value
}

/// Sends a body with headers.
pub(crate) async fn post(app: &App, path: &str, headers: &[(&'static str, &str)], body: Value) -> Answer {
    let mut request = request(Method::POST, path, body.to_string().into());
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    app.send(request).await
}

#[tokio::test]
async fn what_happened_on_the_way_is_told() {
    let (model, app) = Played::new(|| {
        vec![
            notice(Notice::FailedOver { to: "spare".to_owned() }),
            notice(Notice::Cached { age_seconds: 3 }),
            text("Hi"),
            end(FinishReason::Stop),
            usage(),
        ]
    })
    .serve()
    .await;
    let ask = |stream: bool| serde_json::json!({"model": "chat", "messages": "Hi", "stream": stream});
    let answer = app.chat(ask(false)).await;
    let headers = ["x-vendor-request-id", "x-byzerllm-served-by", "x-byzerllm-cache"];
    assert_eq!(headers.map(|name| answer.header(name)), [Some("vendor-1"), Some("spare"), Some("hit")]);
    let told = &answer.ok()["byzerllm"];
    assert_eq!(told["vendor_request_id"], "vendor-1");
    assert_eq!(told["notices"][0], serde_json::json!({"notice": "failed_over", "to": "spare"}));
    assert!(model.last().0.whole);
    let usage = &answer.ok()["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 8);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 3);

    let stream = app.chat(ask(true)).await;
    assert_eq!(stream.header("x-vendor-request-id"), Some("vendor-1"));
    let chunks = stream.chunks();
    assert_eq!(chunks[0]["byzerllm"], serde_json::json!({"vendor_request_id": "vendor-1"}));
    assert_eq!(chunks[1]["byzerllm"]["notices"][1]["notice"], "cached");
    assert!(chunks[2].get("byzerllm").is_none() && !model.last().0.whole);
    let completion = serde_json::json!({"model": "chat", "prompt": "a"});
    assert_eq!(app.complete(completion).await.ok()["byzerllm"]["vendor_request_id"], "vendor-1");
}

#[tokio::test]
async fn a_vendors_id_is_told_with_its_failure() {
    let (_, app) = Played::new(broken).serve().await;
    let ask = |stream: bool| serde_json::json!({"model": "chat", "messages": "Hi", "stream": stream});
    let answer = app.chat(ask(false)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-vendor-request-id")), (502, Some("vendor-1")));
    assert_eq!(answer.json()["error"]["vendor_request_id"], "vendor-1");
    let data = app.chat(ask(true)).await.data();
    let last: Value = serde_json::from_str(data.last().unwrap()).unwrap();
    assert_eq!(last["error"]["vendor_request_id"], "vendor-1");
}

#[tokio::test]
async fn a_restart_is_told_to_those_who_allow_it_and_ends_the_others() {
    let restart = || {
        let begun = [text("Hel"), notice(Notice::Restarted)];
        begun.into_iter().chain([text("Hi"), end(FinishReason::Stop), usage()]).collect()
    };
    let (model, app) = Played::new(restart).serve().await;
    let body = serde_json::json!({"model": "chat", "messages": "Hi", "stream": true});
    let path = "/v1/chat/completions";
    let told = post(&app, path, &[("x-byzerllm-takeover", "restart")], body.clone()).await.chunks();
    assert_eq!(told[2]["byzerllm"]["notices"][0]["notice"], "restarted");
    assert_eq!(told[2]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(model.last().1.takeover.as_str(), "restart");
    let data = app.chat(body.clone()).await.data();
    assert!(data.last().unwrap().contains("X-Byzerllm-Takeover"), "{data:?}");
    assert_eq!(model.last().1.takeover.as_str(), "continue");
    post(&app, path, &[("x-byzerllm-takeover", "never")], body.clone()).await;
    assert_eq!(model.last().1.takeover.as_str(), "never");
    let (status, param, ..) = post(&app, path, &[("x-byzerllm-takeover", "often")], body).await.error();
    assert_eq!((status, param.as_deref()), (400, Some("x-byzerllm-takeover")));
    // What cannot tell a restart does not allow one.
    let body = serde_json::json!({"model": "chat", "prompt": "Hi", "stream": true});
    post(&app, "/v1/completions", &[("x-byzerllm-takeover", "restart")], body).await;
    assert_eq!(model.last().1.takeover.as_str(), "continue");
    // A whole answer is the last one.
    let whole = app.chat(serde_json::json!({"model": "chat", "messages": "Hi"})).await.ok();
    assert_eq!(whole["choices"][0]["message"]["content"], "Hi");
    assert_eq!(model.last().1.takeover.as_str(), "restart");
}

#[tokio::test]
async fn kept_answers_are_refused_with_no_store() {
    let (model, app) = Played::new(rich).serve().await;
    let body = serde_json::json!({"model": "chat", "messages": "Hi"});
    for (value, refused) in
        [("no-store", true), ("max-age=0, No-Store", true), ("no-cache", false), ("no-storefront", false)]
    {
        post(&app, "/v1/chat/completions", &[("cache-control", value)], body.clone()).await.ok();
        assert_eq!(model.last().1.no_cache, refused, "{value}");
    }
}

#[tokio::test]
async fn parameters_that_a_model_declares_reach_it() {
    let (model, app) =
        Played::new(rich).declaring(&["enable_search", "reasoning_effort", "top_k2"]).serve().await;
    let search = serde_json::json!({"source": ["a"]});
    let body = serde_json::json!({
        "model": "chat", "messages": "Hi", "enable_search": search, "reasoning_effort": "high", "top_k": 3, "top_k2": null
    });
    app.send(request(Method::POST, "/v1/chat/completions", body.to_string().into())).await.ok();
    let request_ = model.last().0;
    assert_eq!(
        Value::Object(request_.extra),
        serde_json::json!({"enable_search": {"source": ["a"]}, "reasoning_effort": "high"})
    );
    assert_eq!(request_.sampling.top_k, Some(3));
    let body = serde_json::json!({"model": "chat", "prompt": ["a", "b"], "enable_search": true});
    app.send(request(Method::POST, "/v1/completions", body.to_string().into())).await.ok();
    assert_eq!(model.last().0.extra["enable_search"], true);
    let wrong = serde_json::json!({"model": "chat", "messages": "Hi", "enable_serch": true});
    let (status, param, _, message) = app.chat(wrong).await.error();
    assert_eq!((status, param.as_deref()), (400, Some("enable_serch")));
    assert!(message.contains("did you mean `enable_search`?"), "{message}");

    // Other models have no such parameter.
    let other = App::answering("x").await;
    let wrong = serde_json::json!({"model": "chat", "messages": "Hi", "enable_search": true});
    let (.., message) = other.chat(wrong).await.error();
    assert_eq!(message, "unknown field `enable_search`; remove it");
}
