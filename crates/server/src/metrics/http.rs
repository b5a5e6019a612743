//! How HTTP requests were answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::{Method, StatusCode};

use super::text::{Kind, Page};

/// The route of what no route takes.
const UNMATCHED: &str = "unmatched";

/// Counts answers. Routes are those of the table and methods those of HTTP, whatever is asked.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    routes: BTreeMap<&'static str, Mutex<Answers>>,
}

/// How often a route answered a method with a status.
type Answers = BTreeMap<(&'static str, u16), u64>;

impl HttpMetrics {
    pub(crate) fn new(routes: impl Iterator<Item = &'static str>) -> Self {
        Self { routes: routes.chain([UNMATCHED]).map(|route| (route, Mutex::default())).collect() }
    }

    pub(crate) fn count(&self, route: Option<&str>, method: &Method, status: StatusCode) {
        let known = route.and_then(|route| self.routes.get(route));
        let Some(answers) = known.or_else(|| self.routes.get(UNMATCHED)) else { return };
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((word(method), status.as_u16())).or_default() += 1;
    }

    pub(super) fn write(&self, page: &mut Page) {
        let help =
            "HTTP requests answered, by route, method and status; those of a stream count when it begins.";
        page.metric(Kind::Counter, "byzerllm_http_requests_total", help);
        for (route, answers) in &self.routes {
            for ((method, status), count) in &*answers.lock().unwrap_or_else(PoisonError::into_inner) {
                let status = status.to_string();
                page.sample(&[("route", route), ("method", method), ("status", &status)], count);
            }
        }
    }
}

fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
