//! Several deployments behind one name.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use byzerllm_core::testing::{Checked, ScriptedModel, conformance};
use byzerllm_core::{
    ChatRequest, EmbeddingInput, EmbeddingRequest, Error, ErrorKind, Event, FinishReason, FrontEnd, Input,
    Message, Notice, RequestContext, Role, Takeover, Usage, collect,
};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{AfterFirst, DeploymentSpec, Runtime};
use futures::StreamExt;
use proptest::prelude::*;

use crate::shelf::{Parrot, Plan, Shelf};
use crate::{Through, answer, embedded, options, request, spec};

const TEXT: &str = "The quick  brown\n fox, 狐狸 jumps over.";

/// A route `chat` to these targets.
fn route(targets: &str) -> DeploymentSpec {
    named("chat", targets)
}

fn named(name: &str, targets: &str) -> DeploymentSpec {
    let mut spec = DeploymentSpec::new(name, "");
    spec.set("route.targets", targets).unwrap();
    spec
}

fn after_first(targets: &str, after_first: AfterFirst) -> DeploymentSpec {
    let mut spec = route(targets);
    spec.route.as_mut().unwrap().fallback.after_first = after_first;
    spec
}

/// A runtime with two local models of one text, of which the first breaks after two words, and a route over both.
async fn breaking(text: &'static str, policy: AfterFirst) -> Runtime {
    let loader = ScriptedLoader::new(move |spec: &DeploymentSpec| {
        let model = ScriptedModel::new(text);
        Ok(Arc::new(match spec.name.as_str() {
            "a" => model.failing_after(2, Error::new(ErrorKind::Upstream, "broken")),
            _ => model,
        }))
    });
    let runtime = embedded(loader).await;
    for name in ["a", "b"] {
        runtime.deploy(spec(name)).await.unwrap();
    }
    runtime.deploy(after_first("a,b=0", policy)).await.unwrap();
    runtime
}

/// A runtime with these models, and the route `chat` over them.
async fn routed(models: &[(&str, &Arc<Parrot>)], route: DeploymentSpec) -> Runtime {
    let runtime = embedded(Shelf::of(models)).await;
    for (name, _) in models {
        runtime.deploy(spec(name)).await.unwrap();
    }
    runtime.deploy(route).await.unwrap();
    runtime
}

/// The events of a request to `chat`, the contract of streams checked.
async fn events(runtime: &Runtime, context: RequestContext) -> Vec<byzerllm_core::Result<Event>> {
    match runtime.chat(context, request("chat")).await {
        Ok(stream) => Checked::new(stream, 1).collect().await,
        Err(error) => vec![Err(error)],
    }
}

fn notices(events: &[byzerllm_core::Result<Event>]) -> Vec<Notice> {
    let notice = |event: &byzerllm_core::Result<Event>| match event {
        Ok(Event::Notice { notice }) => Some(notice.clone()),
        _ => None,
    };
    events.iter().filter_map(notice).collect()
}

fn text(events: &[byzerllm_core::Result<Event>]) -> String {
    let mut all = String::new();
    for event in events {
        match event {
            Ok(Event::Text { text, .. }) => all.push_str(text),
            Ok(Event::Notice { notice: Notice::Restarted }) => all.clear(),
            _ => {}
        }
    }
    all
}

fn to(target: &str) -> Notice {
    Notice::FailedOver { to: target.to_owned() }
}

fn usage(events: &[byzerllm_core::Result<Event>]) -> Usage {
    match events.last().unwrap() {
        Ok(Event::Usage { usage }) => usage.clone(),
        Err(error) => error.usage().unwrap().clone(),
        other => unreachable!("the last event is {other:?}"),
    }
}

fn outcomes(runtime: &Runtime, name: &str) -> Vec<(&'static str, u64)> {
    let all = runtime.metrics();
    let metrics = all.into_iter().find(|metrics| metrics.deployment == name).unwrap();
    metrics.requests.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn a_routed_model_keeps_the_contract() {
    let loader = ScriptedLoader::answering("one two three four five six seven eight");
    let runtime = embedded(loader).await;
    for name in ["a", "b"] {
        runtime.deploy(spec(name)).await.unwrap();
    }
    let mut inner = named("inner", "b,a");
    inner.set("route.after_first", "restart").unwrap();
    runtime.deploy(inner).await.unwrap();
    runtime.deploy(route("a=2,inner=1")).await.unwrap();
    conformance(Arc::new(Through(runtime, "chat")), "route").await;
}

#[tokio::test]
async fn shares_follow_the_weights() {
    let (a, b, reserve) = (Parrot::new(TEXT, []), Parrot::new(TEXT, []), Parrot::new(TEXT, []));
    let models = [("a", &a), ("b", &b), ("reserve", &reserve)];
    let runtime = routed(&models, route("a=3,b=1,reserve=0")).await;
    for _ in 0..8 {
        assert_eq!(answer(&runtime, "chat").await.unwrap(), TEXT);
    }
    assert_eq!([a.requests().len(), b.requests().len(), reserve.requests().len()], [6, 2, 0]);
    assert_eq!(outcomes(&runtime, "chat"), [("stop", 8)], "the route counts");
    assert_eq!(outcomes(&runtime, "a"), [("stop", 6)], "and its targets do");
}

#[tokio::test]
async fn before_the_first_piece_another_target_answers() {
    let kinds = [
        ErrorKind::RateLimited,
        ErrorKind::Overloaded,
        ErrorKind::Upstream,
        ErrorKind::Unavailable,
        ErrorKind::Unauthenticated,
        ErrorKind::PermissionDenied,
        ErrorKind::NotFound,
        ErrorKind::TooLarge,
        ErrorKind::Unsupported,
    ];
    let early = [Plan::Fail(0, ErrorKind::Upstream), Plan::Vanish(0)];
    for plan in kinds.into_iter().map(Plan::Refuse).chain(early) {
        let (a, b) = (Parrot::new("never", [plan]), Parrot::new(TEXT, []));
        let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
        let told: Arc<Mutex<Vec<Usage>>> = Arc::default();
        let hears = Arc::clone(&told);
        let hook = move |usage: &Usage| hears.lock().unwrap().push(usage.clone());
        let context = RequestContext { on_usage: Some(Arc::new(hook)), ..RequestContext::local() };
        let id = context.id.clone();
        let events = events(&runtime, context).await;
        assert_eq!(text(&events), TEXT, "{plan:?}");
        assert_eq!(notices(&events), [to("b")]);
        let Ok(Event::Started { request_id, vendor_request_id }) = &events[0] else { panic!("no start") };
        assert_eq!((request_id, vendor_request_id.as_deref()), (&id, Some("vendor")));
        assert!(matches!(&events[1], Ok(Event::Notice { .. })), "told before anything is said");
        // An attempt that had begun read its prompt.
        let prompts = if early.contains(&plan) { 10 } else { 5 };
        assert_eq!(usage(&events).prompt_tokens, prompts, "{plan:?}");
        assert_eq!(*told.lock().unwrap(), [usage(&events)], "told once, as the stream says");
        assert_eq!(outcomes(&runtime, "b"), [("stop", 1)]);
        assert_eq!(outcomes(&runtime, "a").len(), 1, "the failure is counted where it happened");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_told_at_once() {
    for kind in [ErrorKind::InvalidRequest, ErrorKind::Internal, ErrorKind::Cancelled] {
        let (a, b) = (Parrot::new(TEXT, [Plan::Refuse(kind)]), Parrot::new(TEXT, []));
        let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
        let error = answer(&runtime, "chat").await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, "refused as planned"));
        assert!(b.requests().is_empty());
    }
}

#[tokio::test]
async fn a_caller_may_want_no_other_target() {
    let (a, b) = (Parrot::new(TEXT, [Plan::Refuse(ErrorKind::Upstream)]), Parrot::new(TEXT, []));
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
    let context = RequestContext { takeover: Takeover::Never, ..RequestContext::local() };
    let events = events(&runtime, context).await;
    assert_eq!(events[0].as_ref().unwrap_err().message(), "refused as planned");
    assert!(b.requests().is_empty());
    let mut declared = route("a,b");
    declared.set("route.before_first", "false").unwrap();
    let a = Parrot::new(TEXT, [Plan::Refuse(ErrorKind::Upstream)]);
    let runtime = routed(&[("a", &a), ("b", &b)], declared).await;
    assert_eq!(answer(&runtime, "chat").await.unwrap_err().kind(), ErrorKind::Upstream);
}

#[tokio::test]
async fn when_all_fail_the_error_says_what_each_one_said() {
    let a = Parrot::new(TEXT, [Plan::Refuse(ErrorKind::Unauthenticated)]);
    let b = Parrot::new(TEXT, [Plan::Fail(0, ErrorKind::Upstream)]);
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
    let error = answer(&runtime, "chat").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upstream, "{error}");
    assert!(error.message().contains("'a': refused") && error.message().contains("'b': failed"), "{error}");
    assert_eq!(error.usage().unwrap().prompt_tokens, 5);
}

#[tokio::test]
async fn in_the_middle_a_failure_is_an_error_unless_declared_otherwise() {
    let a = Parrot::new(TEXT, [Plan::Fail(4, ErrorKind::Upstream), Plan::Vanish(3)]);
    let b = Parrot::new(TEXT, []);
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b=0")).await;
    for said in [8, 6] {
        let events = events(&runtime, RequestContext::local()).await;
        assert_eq!(text(&events).chars().count(), said);
        assert_eq!(events.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Upstream);
        assert_eq!(usage(&events).completion_tokens as usize, said / 2, "what was spent is told");
        assert!(notices(&events).is_empty());
    }
    assert!(b.requests().is_empty());
}

#[tokio::test]
async fn a_restart_is_told_before_the_answer_begins_again() {
    let a = Parrot::new("Another answer", [Plan::Fail(4, ErrorKind::Upstream)]);
    let b = Parrot::new(TEXT, []);
    let runtime = routed(&[("a", &a), ("b", &b)], after_first("a,b=0", AfterFirst::Restart)).await;
    let events = events(&runtime, RequestContext::local()).await;
    assert_eq!(notices(&events), [Notice::Restarted, to("b")]);
    let restart = events.iter().position(|event| matches!(event, Ok(Event::Notice { .. }))).unwrap();
    assert_eq!(text(&events[..restart]), "Another ");
    assert_eq!(text(&events), TEXT);
    assert_eq!(usage(&events).prompt_tokens, 10);
    let folded = collect(futures::stream::iter(events).boxed()).await.unwrap();
    assert_eq!((folded.choices.len(), folded.choices[0].text.as_str()), (1, TEXT));
}

#[tokio::test]
async fn a_continuation_goes_on_from_the_text_so_far() {
    // In the white space, which the second target is not shown and says again.
    for (pieces, prefix) in [(5, "The quick"), (6, "The quick  b"), (9, "The quick  brown\n")] {
        let a = Parrot::new(TEXT, [Plan::Fail(pieces, ErrorKind::Upstream)]);
        let b = Parrot::new(TEXT, []);
        let runtime = routed(&[("a", &a), ("b", &b)], after_first("a,b=0", AfterFirst::Continue)).await;
        let mut asked = request("chat");
        asked.sampling.max_tokens = Some(40);
        let stream = runtime.chat(RequestContext::local(), asked).await.unwrap();
        let events: Vec<_> = Checked::new(stream, 1).collect().await;
        assert_eq!(text(&events), TEXT, "after {pieces} pieces");
        assert_eq!(notices(&events), [to("b")]);
        let seen = &b.requests()[0];
        let Input::Messages(messages) = &seen.input else { panic!("no messages") };
        let last = messages.last().unwrap();
        assert_eq!((last.role, last.content.as_str()), (Role::Assistant, prefix.trim_end()));
        assert_eq!(last.extra.get("partial"), Some(&true.into()), "as the vendor wants to be told");
        assert_eq!(seen.sampling.max_tokens, Some(40 - pieces as u32), "what is said counts");
    }
}

#[tokio::test]
async fn a_local_model_goes_on_from_the_rendered_conversation() {
    let runtime = breaking("one two three four", AfterFirst::Continue).await;
    let events = events(&runtime, RequestContext::local()).await;
    // The scripted model begins anew; what it was asked is in its usage: conversation and two words.
    assert_eq!(text(&events), "one twoone two three four");
    let prompt = "user: hello\nassistant:".split_whitespace().count() as u32;
    assert_eq!(usage(&events).prompt_tokens, 2 * prompt + 1, "the first word follows the colon at once");
}

#[tokio::test]
async fn one_that_cannot_go_on_is_not_asked_to() {
    let a = Parrot::new(TEXT, [Plan::Fail(4, ErrorKind::Upstream)]);
    let (closed, b) = (Parrot::closed("no"), Parrot::new(TEXT, []));
    let spec = after_first("a,closed=0,b=0", AfterFirst::Continue);
    let runtime = routed(&[("a", &a), ("closed", &closed), ("b", &b)], spec).await;
    let first = events(&runtime, RequestContext::local()).await;
    assert_eq!((text(&first).as_str(), notices(&first)), (TEXT, vec![to("b")]));
    assert!(closed.requests().is_empty());
    let a = Parrot::new(TEXT, [Plan::Fail(4, ErrorKind::Upstream)]);
    let models = [("a", &a), ("closed", &closed)];
    let runtime = routed(&models, after_first("a,closed=0", AfterFirst::Continue)).await;
    let error = events(&runtime, RequestContext::local()).await.pop().unwrap().unwrap_err();
    assert_eq!(error.message(), "failed as planned");
}

#[tokio::test]
async fn the_limit_of_an_answer_holds_over_a_continuation() {
    let a = Parrot::new(TEXT, [Plan::Fail(4, ErrorKind::Upstream)]);
    let b = Parrot::new(TEXT, []);
    let runtime = routed(&[("a", &a), ("b", &b)], after_first("a,b=0", AfterFirst::Continue)).await;
    let mut asked = request("chat");
    asked.sampling.max_tokens = Some(4);
    let stream = runtime.chat(RequestContext::local(), asked).await.unwrap();
    let response = collect(Checked::new(stream, 1).boxed()).await.unwrap();
    assert_eq!(response.choices[0].finish_reason, FinishReason::Length);
    assert_eq!(response.choices[0].text, "The quic");
    assert!(b.requests().is_empty(), "nothing was left to say");
}

#[tokio::test]
async fn a_caller_narrows_what_is_declared() {
    for (declared, wanted, expected) in [
        (AfterFirst::Restart, Takeover::BeforeFirst, None),
        (AfterFirst::Restart, Takeover::Continue, Some(vec![to("b")])),
        (AfterFirst::Restart, Takeover::Restart, Some(vec![Notice::Restarted, to("b")])),
        (AfterFirst::Continue, Takeover::Restart, Some(vec![to("b")])),
        (AfterFirst::Error, Takeover::Restart, None),
    ] {
        let a = Parrot::new(TEXT, [Plan::Fail(4, ErrorKind::Upstream)]);
        let b = Parrot::new(TEXT, []);
        let runtime = routed(&[("a", &a), ("b", &b)], after_first("a,b=0", declared)).await;
        let context = RequestContext { takeover: wanted, ..RequestContext::local() };
        let events = events(&runtime, context).await;
        match expected {
            None => assert!(events.last().unwrap().is_err(), "{declared:?} {wanted:?}"),
            Some(expected) => {
                assert_eq!(
                    (notices(&events), text(&events).as_str()),
                    (expected, TEXT),
                    "{declared:?} {wanted:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn defaults_are_the_routes_then_the_targets_then_the_front_ends() {
    let a = Parrot::new(TEXT, []);
    let runtime = embedded(Shelf::of(&[("a", &a)])).await;
    let mut target = spec("a");
    for (key, value) in [("temperature", "0.25"), ("top_k", "7"), ("max_tokens", "9")] {
        target.set(key, value).unwrap();
    }
    runtime.deploy(target).await.unwrap();
    let mut chat = route("a");
    chat.set("temperature", "0.5").unwrap();
    runtime.deploy(chat).await.unwrap();
    answer(&runtime, "chat").await.unwrap();
    let mut asked = request("chat");
    (asked.front_end, asked.sampling.max_tokens) = (FrontEnd::Legacy, Some(3));
    collect(runtime.chat(RequestContext::local(), asked).await.unwrap()).await.unwrap();
    let seen = a.requests();
    let first = &seen[0].sampling;
    assert_eq!((first.temperature, first.top_k, first.max_tokens), (Some(0.5), Some(7), Some(9)));
    assert_eq!(first.top_p, Some(1.0));
    let second = &seen[1].sampling;
    assert_eq!((second.temperature, second.top_p, second.max_tokens), (Some(0.5), Some(0.7), Some(3)));
    assert_eq!((seen[0].model.as_str(), seen[0].clip_max_tokens), ("a", true));
}

#[tokio::test]
async fn full_targets_and_those_that_are_gone_are_passed_over() {
    let slow = Plan::Slowly(Duration::from_secs(3600));
    let (a, b) = (Parrot::new(TEXT, [slow]), Parrot::new(TEXT, []));
    let runtime = embedded(Shelf::of(&[("a", &a), ("b", &b)])).await;
    let mut narrow = spec("a");
    narrow.limits.concurrency = Some(1);
    runtime.deploy(narrow).await.unwrap();
    runtime.deploy(spec("b")).await.unwrap();
    runtime.deploy(route("a=100,b=1")).await.unwrap();
    let held = runtime.chat(RequestContext::local(), request("a")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&runtime, "chat").await.unwrap(), TEXT);
    }
    assert_eq!(b.requests().len(), 3);
    drop(held);
    assert_eq!(a.active(), 0);
    a.break_circuit();
    assert_eq!(answer(&runtime, "chat").await.unwrap(), TEXT);
    assert_eq!(b.requests().len(), 4, "one that would refuse is not asked");
    runtime.undeploy("b", Duration::ZERO).await.unwrap();
    assert_eq!(answer(&runtime, "chat").await.unwrap(), TEXT);
    runtime.undeploy("a", Duration::ZERO).await.unwrap();
    let error = answer(&runtime, "chat").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("a, b"), "{error}");
}

#[tokio::test]
async fn a_route_that_leads_nowhere_is_refused() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    runtime.deploy(spec("model")).await.unwrap();
    let error = runtime.deploy(route("modle")).await.unwrap_err();
    assert!(error.message().contains("did you mean 'model'?"), "{error}");
    runtime.deploy(named("inner", "model")).await.unwrap();
    runtime.deploy(route("inner,model")).await.unwrap();
    let error = runtime.deploy(named("inner", "chat")).await.unwrap_err();
    assert!(error.message().contains("lead back to itself: inner → chat → inner"), "{error}");
    let error = runtime.deploy(named("self", "self")).await.unwrap_err();
    assert!(error.message().contains("lead back"), "{error}");
    for (name, target) in [("r1", "model"), ("r2", "r1"), ("r3", "r2"), ("r4", "r3")] {
        runtime.deploy(named(name, target)).await.unwrap();
    }
    assert_eq!(answer(&runtime, "r4").await.unwrap(), "x");
    let error = runtime.deploy(named("r5", "r4")).await.unwrap_err();
    assert!(error.message().contains("more than 4 routes"), "{error}");
    let mut engine = route("model");
    engine.limits.max_sequences = Some(1);
    assert_eq!(runtime.deploy(engine).await.unwrap_err().param(), Some("max_sequences"));
    // One that grew too long behind the back of those that lead to it fails when it is asked.
    runtime.deploy(named("r0", "model")).await.unwrap();
    runtime.deploy(named("r1", "r0")).await.unwrap();
    assert_eq!(answer(&runtime, "r4").await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn routes_come_back_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let state = Some(directory.path().to_path_buf());
    let open = || Runtime::open_with(options(state.clone()), ScriptedLoader::answering("again"));
    let runtime = open().await.unwrap();
    runtime.deploy(spec("z")).await.unwrap();
    let mut stored = route("z=3");
    stored.set("route.hedge_after_ms", "50").unwrap();
    runtime.deploy(stored.clone()).await.unwrap();
    runtime.shutdown(Duration::ZERO).await;
    drop(runtime);
    let runtime = open().await.unwrap();
    let ready = |name: &str| runtime.status(name).unwrap().state.as_str() == "ready";
    while !(ready("z") && ready("chat")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(runtime.status("chat").unwrap().spec, stored);
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "again");
    runtime.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_target_is_asked_when_the_first_is_slow() {
    let slow = |seconds| Plan::Slowly(Duration::from_secs(seconds));
    let a = Parrot::new("slow", [slow(3), slow(60), slow(60), Plan::Refuse(ErrorKind::Upstream)]);
    let b = Parrot::new(TEXT, []);
    let mut hedged = route("a,b=0");
    hedged.set("route.hedge_after_ms", "10000").unwrap();
    let runtime = routed(&[("a", &a), ("b", &b)], hedged).await;
    // The first piece comes after two pauses of three seconds.
    let first = events(&runtime, RequestContext::local()).await;
    assert_eq!((text(&first).as_str(), notices(&first).len(), b.requests().len()), ("slow", 0, 0));
    let began = tokio::time::Instant::now();
    let second = events(&runtime, RequestContext::local()).await;
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!((text(&second).as_str(), notices(&second)), (TEXT, vec![to("b")]));
    assert_eq!(a.active(), 0, "the slow one is cancelled");
    assert_eq!(usage(&second).prompt_tokens, 10, "and what it spent is counted");
    assert_eq!(outcomes(&runtime, "a"), [("stop", 1), ("cancelled", 1)]);
    // Not for a caller who wants one target only, and not after a failure, which the second one mends at once.
    let alone = RequestContext { takeover: Takeover::Never, ..RequestContext::local() };
    assert_eq!(text(&events(&runtime, alone).await), "slow");
    let began = tokio::time::Instant::now();
    assert_eq!(text(&events(&runtime, RequestContext::local()).await), TEXT);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn nobody_is_asked_after_the_deadline() {
    let (a, b) = (Parrot::new(TEXT, [Plan::Refuse(ErrorKind::DeadlineExceeded)]), Parrot::new(TEXT, []));
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
    let context = RequestContext { deadline: Some(Instant::now()), ..RequestContext::local() };
    let error = events(&runtime, context).await.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(b.requests().is_empty());
    // A vendor's own time limit is no deadline.
    let a = Parrot::new(TEXT, [Plan::Refuse(ErrorKind::DeadlineExceeded)]);
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
    assert_eq!(answer(&runtime, "chat").await.unwrap(), TEXT);
}

#[tokio::test]
async fn vectors_fail_over_too() {
    let (a, b) = (Parrot::new("1234", [Plan::Refuse(ErrorKind::Upstream)]), Parrot::new("12", []));
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
    let asked = || EmbeddingRequest {
        model: "chat".to_owned(),
        inputs: vec![EmbeddingInput::Text("x".to_owned())],
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    };
    let embeddings = runtime.embed(RequestContext::local(), asked()).await.unwrap();
    assert_eq!((embeddings.vectors, embeddings.notices), (vec![vec![2.0]], vec![to("b")]));
    let a = Parrot::new("", [Plan::Refuse(ErrorKind::InvalidRequest)]);
    let runtime = routed(&[("a", &a), ("b", &b)], route("a,b")).await;
    assert_eq!(
        runtime.embed(RequestContext::local(), asked()).await.unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
}

#[tokio::test]
async fn a_template_is_that_of_the_first_target_that_has_one() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    runtime.deploy(spec("a")).await.unwrap();
    runtime.deploy(route("a")).await.unwrap();
    let messages = [Message::new(Role::User, "hello")];
    let rendered = runtime.apply_template("chat", &messages, true).unwrap();
    assert_eq!(rendered, "user: hello\nassistant:");
    let ids = runtime.tokenize("chat", "one two").unwrap();
    assert_eq!(ids, runtime.tokenize("a", "one two").unwrap());
    assert!(runtime.detokenize("chat", &ids).is_ok());
    assert_eq!(runtime.status("chat").unwrap().info.unwrap().engine, "route");
}

fn plan() -> impl Strategy<Value = Plan> {
    let kind = prop_oneof![
        Just(ErrorKind::Upstream),
        Just(ErrorKind::Unavailable),
        Just(ErrorKind::RateLimited),
        Just(ErrorKind::InvalidRequest),
    ];
    prop_oneof![
        Just(Plan::Answer),
        kind.clone().prop_map(Plan::Refuse),
        (0..24_usize, kind).prop_map(|(pieces, kind)| Plan::Fail(pieces, kind)),
        (0..24_usize).prop_map(Plan::Vanish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whoever fails wherever: the text that stands at the end is a beginning of the right one, and all of it when the
    /// stream ends well; the usage is that of all attempts; the contract holds.
    #[test]
    fn no_failure_loses_doubles_or_reorders_text(
        plans in proptest::collection::vec(plan(), 4),
        declared in prop_oneof![Just(AfterFirst::Error), Just(AfterFirst::Continue), Just(AfterFirst::Restart)],
        wanted in proptest::sample::select(Takeover::ALL.to_vec()),
        raw in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let parrots: Vec<_> = plans.iter().map(|plan| Parrot::new(TEXT, [*plan])).collect();
            let names = ["a", "b", "c", "d"];
            let models: Vec<_> = names.into_iter().zip(&parrots).collect();
            let runtime = routed(&models, after_first("a,b,c,d", declared)).await;
            let heard: Arc<Mutex<Vec<Usage>>> = Arc::default();
            let hears = Arc::clone(&heard);
            let hook = move |usage: &Usage| hears.lock().unwrap().push(usage.clone());
            let context =
                RequestContext { on_usage: Some(Arc::new(hook)), takeover: wanted, ..RequestContext::local() };
            let mut asked = request("chat");
            if raw {
                asked = ChatRequest::new("chat", Input::Text("prompt".to_owned()));
            }
            let events: Vec<_> = match runtime.chat(context, asked).await {
                Ok(stream) => Checked::new(stream, 1).collect().await,
                Err(error) => vec![Err(error)],
            };
            let said = text(&events);
            assert!(TEXT.starts_with(&said), "{said:?} {plans:?}");
            match events.last().unwrap() {
                Ok(_) => {
                    assert_eq!(said, TEXT);
                    assert_eq!(*heard.lock().unwrap(), [usage(&events)]);
                }
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
                    // Nobody gave up while a target that would have answered was allowed to.
                    let hopeless = plans.contains(&Plan::Refuse(ErrorKind::InvalidRequest))
                        || plans.iter().any(|plan| matches!(plan, Plan::Fail(_, ErrorKind::InvalidRequest)));
                    let restart = declared == AfterFirst::Restart && wanted == Takeover::Restart;
                    if restart && !hopeless {
                        assert!(!plans.contains(&Plan::Answer), "{error}");
                    }
                }
            }
            let prompts: usize = parrots.iter().map(|parrot| 5 * parrot.requests().len()).sum();
            let told: u32 = heard.lock().unwrap().iter().map(|usage| usage.prompt_tokens).sum();
            assert_eq!(told as usize, prompts, "every attempt is in the usage");
            assert!(parrots.iter().all(|parrot| parrot.active() == 0));
        });
    }
}

#[tokio::test]
async fn every_attempt_is_a_record_of_its_target() {
    let runtime = breaking("one two three", AfterFirst::Restart).await;
    let events = events(&runtime, RequestContext::local()).await;
    let ledger = runtime.ledger().clone();
    let report = move || ledger.usage(byzerllm_runtime::UsageBy::Deployment, None);
    let report = tokio::task::spawn_blocking(report).await.unwrap().unwrap();
    let rows: Vec<_> = report.rows.iter().map(|row| (row.name.as_str(), row.attempts)).collect();
    assert_eq!(rows, [("a", 1), ("b", 1)], "the route itself spends nothing");
    assert_eq!((report.total.requests, report.total.attempts), (1, 2));
    let recorded = report.total.tokens.counted.prompt;
    assert_eq!(recorded, u64::from(usage(&events).prompt_tokens), "the caller is told what was spent for it");
}
