//! Requests and tokens per minute.

use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::testing::conformance;
use byzerllm_core::{EmbeddingInput, EmbeddingRequest, ErrorKind, RequestContext, collect};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Runtime};
use tokio::time::Instant;

use crate::shelf::{Parrot, Plan, Shelf};
use crate::{Through, answer, embedded, request, spec};

/// A runtime with the deployment `chat`, which answers one word.
async fn limited(settings: &[(&str, &str)]) -> Runtime {
    let runtime = embedded(ScriptedLoader::answering("one")).await;
    let mut limited = spec("chat");
    for (key, value) in settings {
        limited.set(key, value).unwrap();
    }
    runtime.deploy(limited).await.unwrap();
    runtime
}

#[tokio::test(start_paused = true)]
async fn requests_above_the_rate_wait_in_order() {
    let runtime = limited(&[("requests_per_minute", "2")]).await;
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let runtime = runtime.clone();
        tasks.push(tokio::spawn(async move {
            answer(&runtime, "chat").await.unwrap();
            began.elapsed().as_secs()
        }));
        tokio::task::yield_now().await;
    }
    let mut ended = Vec::new();
    for task in tasks {
        ended.push(task.await.unwrap());
    }
    assert_eq!(ended, [0, 0, 60, 60, 120]);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_says_when_to_come_back() {
    let runtime = limited(&[("requests_per_minute", "1"), ("queue_limit", "1")]).await;
    answer(&runtime, "chat").await.unwrap();
    let mut waiting = Box::pin(answer(&runtime, "chat"));
    assert!(futures::poll!(&mut waiting).is_pending());
    let metrics = &runtime.metrics()[0];
    assert_eq!((metrics.waiting, metrics.running), (1, 0));
    let error = answer(&runtime, "chat").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    // The one that waits begins in a minute, the next one a minute later.
    assert_eq!(error.retry_after(), Some(Duration::from_secs(121)));
    assert_eq!(waiting.await.unwrap(), "one");
    // One that leaves takes its place in the queue along.
    let mut leaving = Box::pin(answer(&runtime, "chat"));
    assert!(futures::poll!(&mut leaving).is_pending());
    drop(leaving);
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_minute_that_comes_too_late() {
    let runtime = limited(&[("requests_per_minute", "1")]).await;
    answer(&runtime, "chat").await.unwrap();
    let within = |seconds| RequestContext {
        deadline: Some((Instant::now() + Duration::from_secs(seconds)).into_std()),
        ..RequestContext::local()
    };
    let began = Instant::now();
    let error = runtime.chat(within(30), request("chat")).await.err().unwrap();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(61))));
    assert_eq!(began.elapsed(), Duration::ZERO, "it is known at once");
    // Behind another one it is not known beforehand.
    let first = tokio::spawn({
        let runtime = runtime.clone();
        async move { answer(&runtime, "chat").await }
    });
    tokio::task::yield_now().await;
    let error = runtime.chat(within(90), request("chat")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), Duration::from_secs(90));
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn tokens_are_guessed_before_and_corrected_after() {
    let runtime = limited(&[("tokens_per_minute", "300"), ("max_tokens", "150")]).await;
    let began = Instant::now();
    // Thought to be 171 tokens each, they are 4: so many pass one after another.
    for _ in 0..9 {
        answer(&runtime, "chat").await.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Two at once are thought to be more than a minute holds until the first has ended.
    let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    let mut second = Box::pin(runtime.chat(RequestContext::local(), request("chat")));
    assert!(futures::poll!(&mut second).is_pending());
    collect(stream).await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    // One that leaves is counted as far as it came.
    drop(second);
    answer(&runtime, "chat").await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    // One that is refused is not counted.
    let mut wrong = request("chat");
    wrong.n = 0;
    runtime.chat(RequestContext::local(), wrong).await.err().unwrap();
    answer(&runtime, "chat").await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_makes_the_next_one_wait() {
    let runtime = embedded(ScriptedLoader::answering("word ".repeat(90))).await;
    let mut limited = spec("chat");
    limited.set("tokens_per_minute", "100").unwrap();
    runtime.deploy(limited).await.unwrap();
    let began = Instant::now();
    // Nothing bounds the answer, so that only the prompt was thought of.
    answer(&runtime, "chat").await.unwrap();
    answer(&runtime, "chat").await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn vectors_count_too() {
    let parrot = Parrot::new("x", []);
    let runtime = embedded(Shelf::of(&[("chat", &parrot)])).await;
    let mut limited = spec("chat");
    for (key, value) in [("requests_per_minute", "3"), ("tokens_per_minute", "110")] {
        limited.set(key, value).unwrap();
    }
    runtime.deploy(limited).await.unwrap();
    let began = Instant::now();
    let asked = || EmbeddingRequest {
        model: "chat".to_owned(),
        inputs: vec![EmbeddingInput::Text("x".repeat(80))],
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    };
    for seconds in [0, 0, 0, 60] {
        runtime.embed(RequestContext::local(), asked()).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_prefers_the_target_that_has_a_minute_left() {
    let (a, b) = (Parrot::new("a", []), Parrot::new("b", [Plan::Answer]));
    let runtime = embedded(Shelf::of(&[("a", &a), ("b", &b)])).await;
    for (name, rate) in [("a", "2"), ("b", "1")] {
        let mut limited = spec(name);
        limited.set("requests_per_minute", rate).unwrap();
        runtime.deploy(limited).await.unwrap();
    }
    let mut route = DeploymentSpec::new("chat", "");
    route.set("route.targets", "a=9,b=1").unwrap();
    runtime.deploy(route).await.unwrap();
    let began = Instant::now();
    for expected in ["a", "a", "b"] {
        assert_eq!(answer(&runtime, "chat").await.unwrap(), expected);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    answer(&runtime, "chat").await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 60, "when both are full, one waits");
}

#[tokio::test(start_paused = true)]
async fn a_limited_model_keeps_the_contract() {
    let settings = [("requests_per_minute", "5"), ("tokens_per_minute", "400")];
    let runtime = embedded(ScriptedLoader::answering("one two three four five six seven eight")).await;
    let mut limited = spec("chat");
    for (key, value) in settings {
        limited.set(key, value).unwrap();
    }
    runtime.deploy(limited).await.unwrap();
    conformance(Arc::new(Through(runtime, "chat")), "limited").await;
}
