//! Requests: defaults and admission.

use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::testing::{ScriptedModel, conformance};
use byzerllm_core::{ErrorKind, Event, EventStream, FrontEnd, RequestContext, Sampling};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Runtime};
use futures::StreamExt;

use crate::{Through, answer, embedded, gated, request, spec};

#[tokio::test]
async fn what_a_request_leaves_open_comes_from_deployment_and_front_end() {
    let model = Arc::new(ScriptedModel::new("one two three four"));
    let loaded = Arc::clone(&model);
    let runtime = embedded(ScriptedLoader::new(move |_| Ok(Arc::clone(&loaded)))).await;
    let mut deployed = spec("chat");
    deployed.set("top_k", "7").unwrap();
    deployed.set("top_p", "0.5").unwrap();
    runtime.deploy(deployed).await.unwrap();
    let mut asked = request("chat");
    asked.sampling.top_p = Some(0.25);
    asked.front_end = FrontEnd::Legacy;
    byzerllm_core::collect(runtime.chat(RequestContext::local(), asked).await.unwrap()).await.unwrap();
    answer(&runtime, "chat").await.unwrap();
    let seen: Vec<Sampling> = model.requests().into_iter().map(|request| request.sampling).collect();
    let legacy = &seen[0];
    assert_eq!((legacy.temperature, legacy.top_p, legacy.top_k), (Some(0.9), Some(0.25), Some(7)));
    assert_eq!(legacy.max_tokens, Some(1024));
    let open_ai = &seen[1];
    assert_eq!((open_ai.temperature, open_ai.top_p, open_ai.top_k), (Some(1.0), Some(0.5), Some(7)));
    assert_eq!(open_ai.max_tokens, None);
}

#[tokio::test]
async fn a_value_out_of_range_is_named_and_takes_no_place() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    runtime.deploy(spec("chat")).await.unwrap();
    let mut asked = request("chat");
    asked.sampling.top_p = Some(2.0);
    let error = runtime.chat(RequestContext::local(), asked).await.err().unwrap();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("top_p")));
    assert_eq!(runtime.status("chat").unwrap().active, 0);
}

async fn start(runtime: &Runtime) -> EventStream {
    let mut stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Event::Started { .. }))));
    stream
}

fn narrow(spec: &mut DeploymentSpec) {
    spec.limits.concurrency = Some(1);
    spec.limits.queue_limit = Some(1);
}

#[tokio::test]
async fn one_runs_one_waits_and_the_third_is_told_when_to_come_back() {
    let (runtime, gate, _) = gated(narrow).await;
    let first = start(&runtime).await;
    let mut second = Box::pin(runtime.chat(RequestContext::local(), request("chat")));
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(runtime.status("chat").unwrap().active, 2);
    let error = runtime.chat(RequestContext::local(), request("chat")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.retry_after().unwrap() >= Duration::from_secs(1));
    assert!(error.message().contains("1 requests run and 1 wait"), "{error}");
    gate.open();
    let response = byzerllm_core::collect(first).await.unwrap();
    assert_eq!(response.choices[0].text, "one two three");
    let stream = second.await.unwrap();
    assert_eq!(byzerllm_core::collect(stream).await.unwrap().choices[0].text, "one two three");
    assert_eq!(runtime.status("chat").unwrap().active, 0);
}

#[tokio::test]
async fn a_place_is_free_when_the_answer_is_over_or_dropped() {
    let (runtime, gate, _) = gated(narrow).await;
    drop(start(&runtime).await);
    let mut kept = start(&runtime).await;
    gate.open();
    while let Some(event) = kept.next().await {
        if matches!(event.unwrap(), Event::Usage { .. }) {
            break;
        }
    }
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "one two three");
    assert!(kept.next().await.is_none());
}

#[tokio::test]
async fn a_waiting_request_that_is_dropped_leaves_the_queue() {
    let (runtime, _gate, _) = gated(narrow).await;
    let _running = start(&runtime).await;
    for _ in 0..3 {
        let mut waiting = Box::pin(runtime.chat(RequestContext::local(), request("chat")));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
    }
    assert_eq!(runtime.status("chat").unwrap().active, 1);
}

#[tokio::test]
async fn a_deadline_ends_the_wait() {
    let (runtime, _gate, _) = gated(narrow).await;
    let _running = start(&runtime).await;
    let context = RequestContext { deadline: Some(Instant::now()), ..RequestContext::local() };
    let error = runtime.chat(context, request("chat")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn without_a_queue_nobody_waits() {
    let (runtime, _gate, _) = gated(|spec| {
        narrow(spec);
        spec.limits.queue_limit = Some(0);
    })
    .await;
    let _running = start(&runtime).await;
    let error = runtime.chat(RequestContext::local(), request("chat")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
}

#[tokio::test]
async fn streams_keep_their_contract_through_admission() {
    let runtime = embedded(ScriptedLoader::answering("one two three four five six seven eight")).await;
    runtime.deploy(spec("chat")).await.unwrap();
    conformance(Arc::new(Through(runtime, "chat")), "runtime").await;
}
