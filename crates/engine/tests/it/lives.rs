//! The stream contract, failures, probes and the end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use byzerllm_core::testing::conformance;
use byzerllm_core::{ChatModel, ErrorKind, FinishReason, Input, RequestContext, Sampling, Usage, collect};
use byzerllm_engine::TokenRequest;
use futures::StreamExt;

use crate::fake::{BOMB, FAULT, POISON, Shape};
use crate::text::{ask, block_on, greedy, model, until};

#[test]
fn the_local_model_conforms() {
    for windows in [vec![None], vec![None, Some(8)]] {
        let shape = Shape { windows, ..Shape::default() };
        let (model, _) = model(&shape, 40, |_| {});
        block_on(conformance(model.clone(), "local model"));
        block_on(until("all is free", || model.metrics().blocks_used == 0));
    }
}

#[test]
fn a_choice_with_broken_numbers_fails_alone() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |_| {});
        let (good, bad) = futures::join!(
            ask(&model, greedy(Input::Tokens(vec![65, 66]), 20)),
            ask(&model, greedy(Input::Tokens(vec![65, POISON]), 20)),
        );
        assert!(
            matches!(&bad.choices[0].finish_reason, FinishReason::Error(detail) if detail.kind == ErrorKind::Internal)
        );
        assert!(!matches!(good.choices[0].finish_reason, FinishReason::Error(_)));
        let mut request = greedy(Input::Tokens(vec![65, POISON, 66]), 20);
        request.prompt_logprobs = Some(0);
        let stream = model.chat(request, RequestContext::local()).await.unwrap();
        assert_eq!(collect(stream).await.unwrap_err().kind(), ErrorKind::Internal);
        until("all is free", || model.metrics().blocks_used == 0).await;
    });
}

#[test]
fn a_failed_step_ends_its_requests_only() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |_| {});
        let stream =
            model.chat(greedy(Input::Tokens(vec![65, FAULT]), 20), RequestContext::local()).await.unwrap();
        let error = collect(stream).await.unwrap_err();
        assert!(error.message().contains("the test asked"), "{error}");
        ask(&model, greedy(Input::Tokens(vec![65]), 3)).await;
        until("all is free", || model.metrics().blocks_used == 0).await;
    });
}

#[test]
fn a_panic_hangs_nobody() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        control.close();
        let victim = model.chat(greedy(Input::Tokens(vec![65]), 50), RequestContext::local()).await.unwrap();
        let culprit =
            model.chat(greedy(Input::Tokens(vec![65, BOMB]), 50), RequestContext::local()).await.unwrap();
        control.open();
        let (victim, culprit) = futures::join!(collect(victim), collect(culprit));
        assert_eq!(culprit.unwrap_err().kind(), ErrorKind::Internal);
        assert!(victim.is_err_and(|error| error.kind() == ErrorKind::Internal && error.usage().is_some()));
        let refused = model.chat(greedy(Input::Tokens(vec![65]), 5), RequestContext::local()).await;
        assert_eq!(refused.err().unwrap().kind(), ErrorKind::Unavailable);
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(model.probe(soon).await.unwrap_err().kind(), ErrorKind::Unavailable);
        model.closed().await;
    });
}

#[test]
fn shutdown_ends_what_runs() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        control.close();
        let running = model.chat(greedy(Input::Tokens(vec![65]), 50), RequestContext::local()).await.unwrap();
        model.shutdown();
        control.open();
        // The engine may have stopped before or after it took the request.
        let error = collect(running).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        model.closed().await;
        assert_eq!(Arc::strong_count(&control), 1, "the network is gone");
        let refused = model.chat(greedy(Input::Tokens(vec![65]), 5), RequestContext::local()).await;
        assert_eq!(refused.err().unwrap().kind(), ErrorKind::Unavailable);
    });
}

#[test]
fn dropping_the_model_ends_its_thread() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        ask(&model, greedy(Input::Tokens(vec![65]), 5)).await;
        drop(model);
        // The network dies with the thread.
        until("the network is gone", || Arc::strong_count(&control) == 1).await;
    });
}

#[test]
fn probes_count_traffic_and_share_one_token() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        let soon = || Instant::now() + Duration::from_secs(10);
        let results = futures::future::join_all((0..5).map(|_| model.probe(soon()))).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(control.computed.load(Ordering::SeqCst), 1);
        // Recent traffic is proof enough.
        model.probe(soon()).await.unwrap();
        assert_eq!(control.computed.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_stuck_engine_fails_its_probe() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        control.close();
        let error = model.probe(Instant::now() + Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        control.open();
        model.probe(Instant::now() + Duration::from_secs(10)).await.unwrap();
    });
}

#[test]
fn usage_is_reported_once_also_when_dropped() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        control.close();
        let reports: Arc<Mutex<Vec<Usage>>> = Arc::default();
        let seen = reports.clone();
        let hook: byzerllm_core::UsageHook = Arc::new(move |usage| seen.lock().unwrap().push(usage.clone()));
        let context = RequestContext { on_usage: Some(hook), ..RequestContext::local() };
        let mut request = greedy(Input::Tokens(vec![65; 9]), 50);
        request.sampling = Sampling { max_tokens: Some(50), seed: Some(1), ..Sampling::default() };
        let mut stream = model.chat(request, context).await.unwrap();
        control.allow(4);
        stream.next().await.unwrap().unwrap();
        until("four steps are done", || model.metrics().steps == 4).await;
        drop(stream);
        control.open();
        let reports = reports.lock().unwrap().clone();
        assert_eq!(reports.len(), 1);
        // The fourth token was made, though never read.
        assert_eq!((reports[0].prompt_tokens, reports[0].completion_tokens), (9, 4));
    });
}

#[test]
fn other_threads_and_runtimes_may_ask() {
    let (model, _) = model(&Shape::default(), 100, |_| {});
    let expected = block_on(ask(&model, greedy(Input::Text("shared".into()), 20))).choices;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| block_on(ask(&model, greedy(Input::Text("shared".into()), 20))).choices))
            .collect();
        for worker in workers {
            assert_eq!(worker.join().unwrap(), expected);
        }
    });
    // Large inputs are encoded off the task, also on a runtime of one thread.
    let long = "x".repeat(20_000);
    let refused = |result: byzerllm_core::Result<_>| result.err().unwrap().kind();
    let ask_long = || model.chat(greedy(Input::Text(long.clone()), 20), RequestContext::local());
    assert_eq!(refused(block_on(ask_long())), ErrorKind::TooLarge);
    let sampling = Sampling { max_tokens: Some(3), ..Sampling::default() };
    let request = TokenRequest { prompt: vec![1], sampling, ..TokenRequest::default() };
    drop(model.token_stream(request).unwrap());
}
