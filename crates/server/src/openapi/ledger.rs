//! The operations of usage, budgets and prices.

use axum::http::Method;
use byzerllm_runtime::{Budget, NewBudget, Price, UsageBy, UsageReport};
use serde_json::{Value, json};

use super::operations::{Answer, Operation, Tag};
use super::schemas::of;
use crate::wire::ledger::{RemoveAnswer, SetPricesBody};

/// What belongs to a route of the ledger.
pub(super) fn operation(method: &Method, path: &str) -> Option<Operation> {
    let described = match (method.as_str(), path) {
        ("GET", "/byzerllm/v1/usage") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<UsageReport>)];
            let report = Operation::new(
                "usage",
                Tag::Admin,
                "Add up what attempts cost.",
                "The sums; amounts are decimal numbers of units of their currency.",
                ANSWERS,
            );
            Operation { query: &[by, since], ..report.fails(&[400, 503]) }
        }
        ("GET", "/byzerllm/v1/budgets") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Vec<Budget>>)];
            Operation::new("listBudgets", Tag::Admin, "List all budgets.", "Where they stand.", ANSWERS)
        }
        ("POST", "/byzerllm/v1/budgets") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Budget>)];
            Operation::new(
                "setBudget",
                Tag::Admin,
                "Limit what a key or a deployment may spend.",
                "The budget.",
                ANSWERS,
            )
            .says(
                "A budget for the same subject, unit and period is replaced; what was spent of it stays spent.",
            )
            .takes(
                of::<NewBudget>,
                || json!({ "subject": "key", "name": "app", "period": "month", "limit": "10 USD" }),
            )
        }
        ("DELETE", "/byzerllm/v1/budgets/{id}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<RemoveAnswer>)];
            Operation::new("removeBudget", Tag::Admin, "Remove a budget.", "It is gone.", ANSWERS)
                .fails(&[503])
        }
        ("GET", "/byzerllm/v1/prices") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Vec<Price>>)];
            Operation::new("listPrices", Tag::Admin, "List the prices in force.", "The list.", ANSWERS)
        }
        ("POST", "/byzerllm/v1/prices") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Vec<Price>>)];
            Operation::new("setPrices", Tag::Admin, "Set prices, all or none.", "All prices in force.", ANSWERS)
                .says("Units of a currency per million tokens. Attempts that began before keep the price they had.")
                .takes(of::<SetPricesBody>, || {
                    let price = json!({
                        "vendor": "openai", "model": "gpt-4o*", "currency": "USD", "input": "2.5", "cached_input": "1.25",
                        "output": "10"
                    });
                    json!({ "prices": [price] })
                })
        }
        ("DELETE", "/byzerllm/v1/prices/{id}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<RemoveAnswer>)];
            Operation::new("removePrice", Tag::Admin, "Take a price out of force.", "It is gone.", ANSWERS)
                .fails(&[503])
        }
        _ => return None,
    };
    Some(described)
}

fn by() -> Value {
    json!({
        "name": "by",
        "in": "query",
        "required": false,
        "description": "What has a row of its own.",
        "schema": { "type": "string", "enum": UsageBy::ALL.map(UsageBy::as_str), "default": "deployment" }
    })
}

fn since() -> Value {
    json!({
        "name": "since",
        "in": "query",
        "required": false,
        "description": "Count attempts that began from then on, in seconds since 1970.",
        "schema": { "type": "integer", "minimum": 0 }
    })
}
