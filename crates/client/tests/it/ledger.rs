//! Usage, budgets and prices: what is sent where.

use byzerllm_client::Client;
use byzerllm_core::ErrorKind;
use futures::future::join;
use serde_json::json;

use crate::{answer_json, listen};

#[tokio::test]
async fn every_call_reaches_its_route() {
    let (listener, url) = listen().await;
    let client = Client::new(&url, Some("secret".to_owned())).unwrap();
    let ok = "200 OK";

    let report = json!({"rows": []});
    let (got, seen) = join(client.usage("key", Some(5)), answer_json(&listener, ok, &report)).await;
    assert_eq!(got.unwrap(), report);
    assert!(seen.head.starts_with("GET /byzerllm/v1/usage?by=key&since=5 "), "{}", seen.head);
    assert!(seen.head.to_lowercase().contains("authorization: bearer secret"));

    let budget = json!({"subject": "key", "name": "app", "period": "day", "limit": "1 USD"});
    let (got, seen) = join(client.set_budget(&budget), answer_json(&listener, ok, &budget)).await;
    assert_eq!(got.unwrap(), budget);
    assert!(seen.head.starts_with("POST /byzerllm/v1/budgets "), "{}", seen.head);
    assert_eq!(seen.body, budget.to_string());
    let (got, seen) = join(client.list_budgets(), answer_json(&listener, ok, &json!([budget]))).await;
    assert_eq!(got.unwrap(), [budget]);
    assert!(seen.head.starts_with("GET /byzerllm/v1/budgets "), "{}", seen.head);
    let (got, seen) = join(client.remove_budget(7), answer_json(&listener, ok, &json!({}))).await;
    got.unwrap();
    assert!(seen.head.starts_with("DELETE /byzerllm/v1/budgets/7 "), "{}", seen.head);

    let price = json!({"vendor": "openai", "model": "x"});
    let prices = std::slice::from_ref(&price);
    let (got, seen) = join(client.set_prices(prices), answer_json(&listener, ok, &json!([price]))).await;
    assert_eq!(got.unwrap(), prices);
    assert_eq!(seen.body, json!({"prices": [price]}).to_string());
    let (got, seen) = join(client.list_prices(), answer_json(&listener, ok, &json!({}))).await;
    assert_eq!(got.unwrap_err().kind(), ErrorKind::Upstream);
    assert!(seen.head.starts_with("GET /byzerllm/v1/prices "), "{}", seen.head);
    let (got, seen) = join(client.remove_price(8), answer_json(&listener, ok, &json!({}))).await;
    got.unwrap();
    assert!(seen.head.starts_with("DELETE /byzerllm/v1/prices/8 "), "{}", seen.head);
}
