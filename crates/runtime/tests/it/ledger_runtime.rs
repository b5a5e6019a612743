//! The ledger as a runtime keeps it: one attempt per request of a model that does not account for itself.

use byzerllm_core::{ErrorKind, Principal, RequestContext};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{BudgetLimit, NewBudget, Period, Runtime, Subject, UsageBy, UsageReport};
use futures::StreamExt;

use crate::{answer, gated, options, request, spec};

async fn report(runtime: &Runtime, by: UsageBy) -> UsageReport {
    let ledger = runtime.ledger().clone();
    tokio::task::spawn_blocking(move || ledger.usage(by, None)).await.unwrap().unwrap()
}

fn key(name: &str) -> RequestContext {
    let principal = Principal { key_name: Some(name.to_owned()), ..Principal::default() };
    RequestContext { principal, ..RequestContext::local() }
}

#[tokio::test]
async fn local_answers_are_recorded_with_counted_tokens_and_outlive_the_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let state = Some(directory.path().to_path_buf());
    let runtime =
        Runtime::open_with(options(state.clone()), ScriptedLoader::answering("one two three")).await.unwrap();
    runtime.deploy(spec("chat")).await.unwrap();
    answer(&runtime, "chat").await.unwrap();
    let response =
        byzerllm_core::collect(runtime.chat(key("app"), request("chat")).await.unwrap()).await.unwrap();
    runtime.shutdown(std::time::Duration::ZERO).await;
    drop(runtime);
    let runtime = Runtime::open_with(options(state), ScriptedLoader::answering("")).await.unwrap();
    let by_key = report(&runtime, UsageBy::Key).await;
    let names: Vec<_> = by_key.rows.iter().map(|row| (row.name.as_str(), row.requests)).collect();
    assert_eq!(names, [("-", 1), ("app", 1)]);
    let counted = by_key.rows[1].tokens.counted;
    assert_eq!(counted.prompt, u64::from(response.usage.prompt_tokens));
    assert_eq!(counted.completion, u64::from(response.usage.completion_tokens));
    assert!(counted.completion > 0);
    let vendors = report(&runtime, UsageBy::Vendor).await;
    assert_eq!((vendors.rows.len(), vendors.rows[0].name.as_str()), (1, "local"));
    // Our own engine sends no bill: nothing is missing.
    assert!(vendors.total.cost.is_empty());
    assert_eq!((vendors.total.flagged.unknown_price, vendors.total.flagged.estimated), (0, 0));
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_recorded_too() {
    let (runtime, gate, _) = gated(|_| {}).await;
    let mut stream = runtime.chat(RequestContext::local(), request("chat")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    gate.open();
    let mut total = report(&runtime, UsageBy::Deployment).await.total;
    while total.attempts == 0 {
        tokio::task::yield_now().await;
        total = report(&runtime, UsageBy::Deployment).await.total;
    }
    assert_eq!((total.attempts, total.requests), (1, 1));
}

#[tokio::test]
async fn a_key_with_a_spent_budget_is_refused_and_others_are_not() {
    let runtime = crate::embedded(ScriptedLoader::answering("one two three")).await;
    runtime.deploy(spec("chat")).await.unwrap();
    let budget = NewBudget {
        subject: Subject::Key,
        name: "app".to_owned(),
        period: Period::Total,
        limit: BudgetLimit::Tokens(1),
        allow_unknown_price: false,
    };
    let ledger = runtime.ledger().clone();
    tokio::task::spawn_blocking(move || ledger.set_budget(&budget)).await.unwrap().unwrap();
    let mut bounded = request("chat");
    bounded.sampling.max_tokens = Some(4);
    let error = runtime.chat(key("app"), bounded.clone()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.message().contains("key 'app'"), "{error}");
    byzerllm_core::collect(runtime.chat(key("other"), bounded).await.unwrap()).await.unwrap();
    assert_eq!(report(&runtime, UsageBy::Key).await.rows[0].name, "other");
}
