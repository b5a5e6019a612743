//! Usage, budgets and prices over HTTP.

use axum::http::Method;
use byzerllm_core::{Attempt, Ending, Principal, RequestId, Settlement, Task, Usage, UsageSource};
use serde_json::{Value, json};

use crate::support::App;

const PRICES: &str = "/byzerllm/v1/prices";
const BUDGETS: &str = "/byzerllm/v1/budgets";

/// An attempt at a vendor, as a vendor's model makes it.
async fn spend(app: &App, prompt: u32, completion: u32) -> byzerllm_core::Result<()> {
    let attempt = Attempt {
        request: RequestId::generate(),
        principal: Principal { key_name: Some("app".to_owned()), ..Principal::default() },
        deployment: "chat".into(),
        vendor: "openai",
        model: "gpt-4o-mini".into(),
        task: Task::Chat,
        number: 1,
        prompt_tokens: prompt.into(),
        completion_tokens: Some(completion.into()),
    };
    let held = app.runtime.ledger().accounting().begin(attempt).await?;
    let usage = Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        source: UsageSource::Reported,
        ..Usage::default()
    };
    let settlement = Settlement {
        ending: Ending::Answered,
        usage: Some(usage),
        vendor_request_id: None,
        first_event: None,
    };
    held.settle(settlement);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spent_is_priced_limited_and_told() {
    let app = App::answering("hello").await;
    let price = json!({"vendor": "saas/openai", "model": "gpt-4o*", "currency": "USD", "input": "2.5", "output": "10"});
    let set = app.admin(Method::POST, PRICES, json!({ "prices": [price] })).await.ok();
    assert_eq!(set[0]["vendor"], "openai");
    assert_eq!(app.admin(Method::GET, PRICES, "").await.ok(), set);
    let budget = json!({"subject": "key", "name": "app", "period": "month", "limit": "0.02 USD"});
    let set = app.admin(Method::POST, BUDGETS, budget).await.ok();
    assert_eq!((&set["limit"], &set["left"]), (&json!("0.02 USD"), &json!("0.02")));

    spend(&app, 1000, 1000).await.unwrap();
    assert!(spend(&app, 1000, 1000).await.unwrap_err().message().contains("0.0125 spent"));
    app.chat(json!({"model": "chat", "messages": [{"role": "user", "content": "x"}]})).await.ok();
    let listed = app.admin(Method::GET, BUDGETS, "").await.ok();
    assert_eq!((&listed[0]["spent"], &listed[0]["left"]), (&json!("0.0125"), &json!("0.0075")));

    let report = app.admin(Method::GET, "/byzerllm/v1/usage?by=vendor&since=1", "").await.ok();
    let names: Vec<&Value> = report["rows"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["local", "openai"]);
    let openai = &report["rows"][1];
    assert_eq!(openai["cost"], json!({"USD": "0.0125"}));
    assert_eq!(openai["tokens"]["reported"]["completion"], 1000);
    assert_eq!((&report["total"]["requests"], &report["since"]), (&json!(2), &json!(1)));
    assert_eq!(
        report["rows"][0]["tokens"]["counted"]["prompt"].as_u64().map(|tokens| tokens > 0),
        Some(true)
    );

    for (path, list) in [(BUDGETS, listed), (PRICES, app.admin(Method::GET, PRICES, "").await.ok())] {
        let one = format!("{path}/{}", list[0]["id"]);
        let gone = app.admin(Method::DELETE, &one, "").await.ok();
        assert_eq!(gone["removed"], true);
        for missing in [one, format!("{path}/first")] {
            let (status, param, ..) = app.admin(Method::DELETE, &missing, "").await.error();
            assert_eq!((status, param.as_deref()), (404, Some("id")), "{missing}");
        }
        assert_eq!(app.admin(Method::GET, path, "").await.ok(), json!([]));
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let app = App::answering("hello").await;
    for (path, body, part) in [
        (BUDGETS, json!({"subject": "key", "name": "a", "period": "month", "limit": "10 dollars"}), "limit"),
        (BUDGETS, json!({"subject": "key", "name": "", "period": "month", "limit": "1 USD"}), "name"),
        (BUDGETS, json!({"subject": "all", "name": "a", "period": "month", "limit": "1 USD"}), "subject"),
        (PRICES, json!({"prices": []}), "prices"),
        (
            PRICES,
            json!({"prices": [{"vendor": "a", "model": "b", "currency": "USD", "input": 0.1, "output": "1"}]}),
            "prices",
        ),
        (
            PRICES,
            json!({"prices": [{"vendor": "a", "model": "b", "currency": "$", "input": "1", "output": "1"}]}),
            "currency",
        ),
    ] {
        let (status, param, ..) = app.admin(Method::POST, path, body).await.error();
        assert_eq!(status, 400);
        assert!(param.as_deref().is_some_and(|param| param.starts_with(part)), "{param:?} {part}");
    }
    for query in ["by=color", "since=soon", "until=1"] {
        let answer = app.admin(Method::GET, &format!("/byzerllm/v1/usage?{query}"), "").await;
        assert_eq!(answer.error().0, 400, "{query}");
    }
}
