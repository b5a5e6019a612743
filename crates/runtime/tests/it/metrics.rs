//! What is counted, and that everything is counted once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{ChatModel, Error, ErrorKind, Event, Input, RequestContext, collect};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentMetrics, DeploymentSpec, EngineMetrics, Runtime};
use futures::StreamExt;

use crate::{answer, embedded, gated, request, spec};

fn of(runtime: &Runtime, name: &str) -> DeploymentMetrics {
    let all = runtime.metrics();
    all.into_iter().find(|metrics| metrics.deployment == name).unwrap()
}

/// The outcomes that occurred.
fn outcomes(metrics: &DeploymentMetrics) -> Vec<(&'static str, u64)> {
    metrics.requests.iter().copied().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn every_end_of_a_request_is_one_outcome() {
    let loader = ScriptedLoader::new(|spec: &DeploymentSpec| {
        let model = ScriptedModel::new("one two three");
        let upstream = || Error::new(ErrorKind::Upstream, "the vendor failed");
        Ok(Arc::new(match spec.name.as_str() {
            "fails" => model.failing_after(2, upstream()),
            "refuses" => model.refusing(upstream()),
            _ => model,
        }))
    });
    let runtime = embedded(loader).await;
    for name in ["chat", "fails", "refuses"] {
        runtime.deploy(spec(name)).await.unwrap();
    }
    answer(&runtime, "chat").await.unwrap();
    let mut short = request("chat");
    (short.n, short.sampling.max_tokens) = (3, Some(2));
    collect(runtime.chat(RequestContext::local(), short).await.unwrap()).await.unwrap();
    let mut wrong = request("chat");
    wrong.sampling.top_p = Some(2.0);
    runtime.chat(RequestContext::local(), wrong).await.err().unwrap();
    let late = RequestContext { deadline: Some(Instant::now()), ..RequestContext::local() };
    runtime.chat(late, request("chat")).await.err().unwrap();
    answer(&runtime, "fails").await.unwrap_err();
    answer(&runtime, "refuses").await.unwrap_err();
    answer(&runtime, "nothing").await.unwrap_err();

    assert_eq!(runtime.metrics().len(), 3, "a name that does not exist counts nowhere");
    let chat = of(&runtime, "chat");
    let expected = [("stop", 1), ("length", 1), ("invalid_request", 1), ("deadline_exceeded", 1)];
    assert_eq!(outcomes(&chat), expected);
    assert_eq!((chat.running, chat.waiting), (0, 0));
    // One choice of three words, three choices of two; each choice has a gap less than words.
    assert_eq!((chat.first_token.count(), chat.between_tokens.count()), (2, 2 + 3));
    assert_eq!((chat.queue.count(), chat.duration.count()), (3, 2), "the late one had a place");
    let prompt = ScriptedModel::new("").tokenize("user: hello\nassistant:").unwrap().len() as u64;
    assert_eq!((chat.prompt_tokens, chat.generated_tokens), (2 * prompt, 3 + 6));
    assert_eq!(chat.engine, None);
    let fails = of(&runtime, "fails");
    assert_eq!(outcomes(&fails), [("upstream", 1)]);
    assert_eq!((fails.generated_tokens, fails.first_token.count(), fails.duration.count()), (2, 1, 0));
    let refuses = of(&runtime, "refuses");
    assert_eq!(outcomes(&refuses), [("upstream", 1)]);
    assert_eq!((refuses.queue.count(), refuses.first_token.count(), refuses.prompt_tokens), (1, 0, 0));
}

#[tokio::test]
async fn gauges_follow_requests_that_wait_run_and_leave() {
    let (runtime, gate, _) = gated(|spec| {
        spec.limits.concurrency = Some(1);
        spec.limits.queue_limit = Some(2);
    })
    .await;
    let now = || {
        let metrics = of(&runtime, "chat");
        (metrics.running, metrics.waiting, outcomes(&metrics))
    };
    let mut first = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    let mut second = Box::pin(runtime.chat(RequestContext::local(), request("chat")));
    let mut third = Box::pin(runtime.chat(RequestContext::local(), request("chat")));
    assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
    assert_eq!(now(), (1, 2, vec![]));
    runtime.chat(RequestContext::local(), request("chat")).await.err().unwrap();
    assert_eq!(now(), (1, 2, vec![("overloaded", 1)]));
    // One that leaves the queue, and one that leaves in the middle of its answer.
    drop(third);
    assert_eq!(now(), (1, 1, vec![("overloaded", 1), ("cancelled", 1)]));
    gate.allow(2);
    for _ in 0..3 {
        first.next().await.unwrap().unwrap();
    }
    drop(first);
    let metrics = of(&runtime, "chat");
    assert_eq!((metrics.running, metrics.generated_tokens), (0, 2), "tokens of one that left are counted");
    gate.open();
    collect(second.await.unwrap()).await.unwrap();
    assert_eq!(now(), (0, 0, vec![("stop", 1), ("overloaded", 1), ("cancelled", 2)]));
    let metrics = of(&runtime, "chat");
    assert_eq!((metrics.queue.count(), metrics.first_token.count(), metrics.duration.count()), (2, 2, 1));
}

#[tokio::test]
async fn who_leaves_after_the_last_word_has_missed_nothing() {
    let runtime = embedded(ScriptedLoader::answering("one")).await;
    runtime.deploy(spec("chat")).await.unwrap();
    let mut asked = request("chat");
    asked.n = 2;
    for finished in [1, 2] {
        let mut stream = runtime.chat(RequestContext::local(), asked.clone()).await.unwrap();
        let mut seen = 0;
        while seen < finished {
            seen += u32::from(matches!(stream.next().await, Some(Ok(Event::Finished { .. }))));
        }
    }
    assert_eq!(outcomes(&of(&runtime, "chat")), [("stop", 1), ("cancelled", 1)]);
}

#[tokio::test]
async fn an_echo_is_no_token() {
    let runtime = embedded(ScriptedLoader::answering("one two")).await;
    runtime.deploy(spec("chat")).await.unwrap();
    for (text, tokens) in [("the prompt", 2), ("", 2), ("the prompt", 0)] {
        let mut asked = request("chat");
        (asked.input, asked.echo) = (Input::Text(text.to_owned()), true);
        asked.sampling.max_tokens = Some(tokens);
        collect(runtime.chat(RequestContext::local(), asked).await.unwrap()).await.unwrap();
    }
    let metrics = of(&runtime, "chat");
    assert_eq!((metrics.first_token.count(), metrics.between_tokens.count()), (2, 2));
}

#[tokio::test]
async fn numbers_belong_to_the_name() {
    let loader = ScriptedLoader::answering("one");
    let runtime = embedded(loader.clone()).await;
    let engine =
        EngineMetrics { running: 1, blocks_total: 10, steps: 5, preemptions: 2, ..EngineMetrics::default() };
    loader.set_metrics(engine);
    runtime.deploy(spec("chat")).await.unwrap();
    answer(&runtime, "chat").await.unwrap();
    assert_eq!(of(&runtime, "chat").engine, Some(engine));
    // While a request holds on to the old engine, both are there.
    let held = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    runtime.deploy(spec("chat")).await.unwrap();
    let both = of(&runtime, "chat").engine.unwrap();
    assert_eq!((both.running, both.blocks_total, both.steps, both.preemptions), (2, 20, 10, 4));
    collect(held).await.unwrap();
    answer(&runtime, "chat").await.unwrap();
    while of(&runtime, "chat").engine.unwrap().blocks_total == 20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(loader.stops(), 1);
    let metrics = of(&runtime, "chat");
    let after = metrics.engine.unwrap();
    assert_eq!((after.running, after.blocks_total, after.steps, after.preemptions), (1, 10, 10, 4));
    assert_eq!(outcomes(&metrics), [("stop", 3)]);
    // The last of a name takes its numbers along.
    runtime.undeploy("chat", Duration::ZERO).await.unwrap();
    assert!(runtime.metrics().is_empty());
    runtime.deploy(spec("chat")).await.unwrap();
    let fresh = of(&runtime, "chat");
    assert!(fresh.ready && outcomes(&fresh).is_empty() && fresh.engine == Some(engine));
}

/// What counting costs, beside what a scripted model does. Run by hand:
/// `cargo test -p byzerllm-runtime --test it cost_of_counting -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_counting() {
    const WORDS: usize = 20_000;
    let runtime = embedded(ScriptedLoader::answering("word ".repeat(WORDS))).await;
    runtime.deploy(spec("chat")).await.unwrap();
    let bare = runtime.model("chat").unwrap().chat.unwrap();
    let (mut alone, mut counted) = (Duration::MAX, Duration::MAX);
    for _ in 0..30 {
        let began = Instant::now();
        let events = bare.chat(request("chat"), RequestContext::local()).await.unwrap().count().await;
        alone = alone.min(began.elapsed());
        let began = Instant::now();
        let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
        assert_eq!(stream.count().await, events);
        counted = counted.min(began.elapsed());
    }
    let per_word = |time: Duration| time.as_nanos() as f64 / WORDS as f64;
    println!("{:.0} ns per word alone, {:.0} ns through the runtime", per_word(alone), per_word(counted));
}
