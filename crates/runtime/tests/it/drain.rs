//! Removal and shutdown with requests in flight.

use std::time::Duration;

use byzerllm_core::{ErrorKind, Event, RequestContext};
use futures::StreamExt;

use crate::{answer, gated, request, spec};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_running_request_finishes_while_new_ones_are_refused() {
    let (runtime, gate, loader) = gated(|_| ()).await;
    let mut stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Event::Started { .. }))));
    let removal = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.undeploy("chat", LONG).await }
    });
    while runtime.status("chat").unwrap().state.as_str() != "draining" {
        tokio::task::yield_now().await;
    }
    let error = answer(&runtime, "chat").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(runtime.model("chat").err().unwrap().kind(), ErrorKind::Unavailable);
    assert_eq!(loader.stops(), 0);
    gate.open();
    assert_eq!(byzerllm_core::collect(stream).await.unwrap().choices[0].text, "one two three");
    removal.await.unwrap().unwrap();
    assert_eq!(loader.stops(), 1);
    assert_eq!(runtime.status("chat").unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_request_that_outlives_the_limit_is_ended() {
    let (runtime, _gate, loader) = gated(|spec| spec.limits.concurrency = Some(1)).await;
    let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    let reader = tokio::spawn(byzerllm_core::collect(stream));
    let waiter = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.chat(RequestContext::local(), request("chat")).await.map(|_| ()) }
    });
    while runtime.status("chat").unwrap().active != 2 {
        tokio::task::yield_now().await;
    }
    runtime.undeploy("chat", Duration::ZERO).await.unwrap();
    let error = reader.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("removed"), "{error}");
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(loader.stops(), 1);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_hold_up_the_removal() {
    let (runtime, _gate, loader) = gated(|_| ()).await;
    let mut stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    runtime.undeploy("chat", Duration::ZERO).await.unwrap();
    assert_eq!(loader.stops(), 1);
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn the_name_is_free_again_while_the_old_one_drains() {
    let (runtime, gate, loader) = gated(|_| ()).await;
    let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    let replaced = runtime.deploy(spec("chat")).await.unwrap();
    assert_eq!(replaced.state.as_str(), "ready");
    assert_eq!(runtime.status("chat").unwrap().active, 0);
    gate.open();
    assert_eq!(byzerllm_core::collect(stream).await.unwrap().choices[0].text, "one two three");
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "one two three");
    runtime.shutdown(LONG).await;
    assert_eq!(loader.stops(), 2);
}

#[tokio::test]
async fn shutdown_lets_answers_finish_and_refuses_everything_after() {
    let (runtime, gate, loader) = gated(|_| ()).await;
    let stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    let closing = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.shutdown(LONG).await }
    });
    while runtime.status("chat").unwrap().state.as_str() != "draining" {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(byzerllm_core::collect(stream).await.unwrap().choices[0].text, "one two three");
    closing.await.unwrap();
    assert_eq!(loader.stops(), 1);
    assert_eq!(answer(&runtime, "chat").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(runtime.deploy(spec("chat")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    runtime.shutdown(Duration::ZERO).await;
}
