//! Kept answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use byzerllm_core::testing::{Checked, ScriptedModel, conformance};
use byzerllm_core::{
    ChatRequest, Domain, EmbeddingInput, EmbeddingRequest, Error, ErrorKind, Event, Input, Notice, Principal,
    RequestContext, Usage,
};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Runtime};
use futures::StreamExt;

use crate::shelf::{Parrot, Plan, Shelf};
use crate::{Through, embedded, request, spec};

fn keeping(name: &str) -> DeploymentSpec {
    let mut keeping = spec(name);
    keeping.set("answer_cache_entries", "10").unwrap();
    keeping
}

/// A runtime whose deployment `chat` keeps answers, and its model.
async fn kept(model: ScriptedModel) -> (Runtime, Arc<ScriptedModel>) {
    let model = Arc::new(model);
    let loaded = Arc::clone(&model);
    let runtime = embedded(ScriptedLoader::new(move |_| Ok(Arc::clone(&loaded)))).await;
    runtime.deploy(keeping("chat")).await.unwrap();
    (runtime, model)
}

async fn events(runtime: &Runtime, context: RequestContext, request: ChatRequest) -> Vec<Event> {
    let choices = request.n;
    let stream = runtime.chat(context, request).await.unwrap();
    let items: Vec<_> = Checked::new(stream, choices).collect().await;
    items.into_iter().map(Result::unwrap).collect()
}

/// Without what belongs to the way of an answer and not to the answer.
fn answer(events: &[Event]) -> Vec<Event> {
    let own =
        |event: &&Event| !matches!(event, Event::Started { .. } | Event::Notice { .. } | Event::Usage { .. });
    events.iter().filter(own).cloned().collect()
}

fn age(events: &[Event]) -> Option<u64> {
    events.iter().find_map(|event| match event {
        Event::Notice { notice: Notice::Cached { age_seconds } } => Some(*age_seconds),
        _ => None,
    })
}

#[tokio::test]
async fn a_model_that_keeps_answers_keeps_the_contract() {
    let (runtime, model) = kept(ScriptedModel::new("one two three four five six seven eight")).await;
    let through = Arc::new(Through(runtime, "chat"));
    conformance(through.clone(), "kept").await;
    let asked = model.requests().len();
    // Once more: now most of it is told again.
    conformance(through, "kept").await;
    assert!(model.requests().len() - asked < asked / 2, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn the_same_request_is_answered_again_without_the_model() {
    let (runtime, model) = kept(ScriptedModel::new("one two three")).await;
    let mut asked = request("chat");
    (asked.n, asked.sampling.logprobs) = (2, Some(1));
    let first = events(&runtime, RequestContext::local(), asked.clone()).await;
    assert_eq!(age(&first), None);
    tokio::time::advance(Duration::from_secs(90)).await;
    let told: Arc<Mutex<Vec<Usage>>> = Arc::default();
    let hears = Arc::clone(&told);
    let hook = move |usage: &Usage| hears.lock().unwrap().push(usage.clone());
    let context = RequestContext { on_usage: Some(Arc::new(hook)), ..RequestContext::local() };
    let id = context.id.clone();
    let again = events(&runtime, context, asked).await;
    assert_eq!((answer(&again), age(&again)), (answer(&first), Some(90)));
    assert!(matches!(&again[0], Event::Started { request_id, .. } if *request_id == id));
    assert_eq!(model.requests().len(), 1);
    let (Some(Event::Usage { usage: before }), Some(Event::Usage { usage: after })) =
        (first.last(), again.last())
    else {
        panic!("no usage")
    };
    assert_eq!(after.completion_tokens, before.completion_tokens);
    assert_eq!((after.prompt_tokens, after.cached_tokens), (before.prompt_tokens, before.prompt_tokens));
    assert_eq!(*told.lock().unwrap(), std::slice::from_ref(after));
    let metrics = &runtime.metrics()[0];
    assert_eq!((metrics.running, metrics.waiting, metrics.first_token.count()), (0, 0, 2));
}

#[tokio::test]
async fn an_answer_is_kept_for_one_domain_one_wording_and_those_who_want_it() {
    let (runtime, model) = kept(ScriptedModel::new("one two three")).await;
    let of = |domain| {
        let principal = Principal { domain: Domain(domain), key_name: None };
        RequestContext { principal, ..RequestContext::local() }
    };
    let fresh = || RequestContext { no_cache: true, ..RequestContext::local() };
    // Neither told again nor kept.
    events(&runtime, fresh(), request("chat")).await;
    let mut asked = 1;
    for (context, request, is_new) in [
        (of(0), request("chat"), true),
        (of(0), request("chat"), false),
        (of(1), request("chat"), true),
        (of(1), request("chat"), false),
        (of(0), ChatRequest { n: 2, ..request("chat") }, true),
        (of(0), ChatRequest::new("chat", Input::Text("hello".to_owned())), true),
        (fresh(), request("chat"), true),
        (of(0), request("chat"), false),
    ] {
        let events = events(&runtime, context, request).await;
        asked += usize::from(is_new);
        assert_eq!(model.requests().len(), asked);
        assert_eq!(age(&events).is_none(), is_new);
    }
    // Another model of the name knows nothing of the answers of this one.
    runtime.deploy(keeping("chat")).await.unwrap();
    assert_eq!(age(&events(&runtime, RequestContext::local(), request("chat")).await), None);
}

#[tokio::test]
async fn nothing_is_kept_unless_it_was_asked_for_and_complete() {
    let off = embedded(ScriptedLoader::answering("one")).await;
    off.deploy(spec("chat")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(age(&events(&off, RequestContext::local(), request("chat")).await), None);
    }
    let broken = Error::new(ErrorKind::Upstream, "broken");
    let (runtime, model) = kept(ScriptedModel::new("one two three").failing_after(2, broken)).await;
    for asked in 1..3 {
        let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
        assert!(byzerllm_core::collect(stream).await.is_err());
        assert_eq!(model.requests().len(), asked);
    }
    let (runtime, model) = kept(ScriptedModel::new("one two three")).await;
    for asked in 1..3 {
        let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
        assert_eq!(stream.take(3).count().await, 3, "left in the middle");
        assert_eq!(model.requests().len(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_grow_old_and_are_bounded() {
    let model = Arc::new(ScriptedModel::new("word ".repeat(100)));
    let loaded = Arc::clone(&model);
    let runtime = embedded(ScriptedLoader::new(move |_| Ok(Arc::clone(&loaded)))).await;
    let mut keeping = keeping("chat");
    keeping.set("answer_cache_seconds", "60").unwrap();
    runtime.deploy(keeping.clone()).await.unwrap();
    events(&runtime, RequestContext::local(), request("chat")).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(age(&events(&runtime, RequestContext::local(), request("chat")).await), None);
    // A hundred events do not fit into an eighth of so few bytes.
    keeping.set("answer_cache_bytes", "8000").unwrap();
    runtime.deploy(keeping).await.unwrap();
    for _ in 0..2 {
        assert_eq!(age(&events(&runtime, RequestContext::local(), request("chat")).await), None);
    }
    let mut none = spec("chat");
    none.limits.answer_cache_bytes = Some(0);
    assert_eq!(runtime.deploy(none).await.unwrap_err().param(), Some("answer_cache_bytes"));
}

#[tokio::test]
async fn vectors_are_kept_as_well() {
    let parrot = Parrot::new("xyz", []);
    let runtime = embedded(Shelf::of(&[("chat", &parrot)])).await;
    runtime.deploy(keeping("chat")).await.unwrap();
    let asked = |text: &str| EmbeddingRequest {
        model: "chat".to_owned(),
        inputs: vec![EmbeddingInput::Text(text.to_owned())],
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    };
    let first = runtime.embed(RequestContext::local(), asked("a")).await.unwrap();
    let again = runtime.embed(RequestContext::local(), asked("a")).await.unwrap();
    assert_eq!((&again.vectors, first.notices.len()), (&first.vectors, 0));
    assert_eq!(again.notices, [Notice::Cached { age_seconds: 0 }]);
    assert_eq!((again.usage.prompt_tokens, again.usage.cached_tokens), (3, 3));
    assert_eq!(parrot.active(), 1, "asked once");
    runtime.embed(RequestContext::local(), asked("b")).await.unwrap();
    let fresh = RequestContext { no_cache: true, ..RequestContext::local() };
    runtime.embed(fresh, asked("a")).await.unwrap();
    assert_eq!(parrot.active(), 3);
}

#[tokio::test]
async fn a_routes_answer_is_kept_without_its_way() {
    let a = Parrot::new("never", [Plan::Fail(2, ErrorKind::Upstream)]);
    let b = Parrot::new("one two three", []);
    let runtime = embedded(Shelf::of(&[("a", &a), ("b", &b)])).await;
    for name in ["a", "b"] {
        runtime.deploy(spec(name)).await.unwrap();
    }
    let mut route = DeploymentSpec::new("chat", "");
    for (key, value) in
        [("route.targets", "a,b=0"), ("route.after_first", "restart"), ("answer_cache_entries", "5")]
    {
        route.set(key, value).unwrap();
    }
    runtime.deploy(route).await.unwrap();
    let first = events(&runtime, RequestContext::local(), request("chat")).await;
    let again = events(&runtime, RequestContext::local(), request("chat")).await;
    let restarts = |events: &[Event]| {
        events.iter().filter(|event| matches!(event, Event::Notice { notice: Notice::Restarted })).count()
    };
    assert_eq!((restarts(&first), restarts(&again), age(&again)), (1, 0, Some(0)));
    let text: String = again
        .iter()
        .filter_map(|event| match event {
            Event::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(text, "one two three");
}

#[tokio::test]
async fn an_answer_that_is_told_again_is_in_the_ledger_for_nothing() {
    let (runtime, _) = kept(ScriptedModel::new("one two three")).await;
    for _ in 0..3 {
        events(&runtime, RequestContext::local(), request("chat")).await;
    }
    let ledger = runtime.ledger().clone();
    let report = move || ledger.usage(byzerllm_runtime::UsageBy::Deployment, None);
    let total = tokio::task::spawn_blocking(report).await.unwrap().unwrap().total;
    assert_eq!((total.requests, total.attempts, total.cached_answers), (3, 3, 2));
    assert_eq!(total.tokens.counted.completion, 3, "tokens are spent once");
}
