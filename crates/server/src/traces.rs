//! The span of an HTTP request, for who collects traces; [`byzerllm_runtime::TRACES`] says how it is told from the log.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode};
use byzerllm_core::RequestId;
use byzerllm_runtime::TRACES;
use tracing::Span;
use tracing::field::Empty;

/// Puts a request's span below that of its caller, which the W3C headers `traceparent` (the first text) and
/// `tracestate` (the second, often empty) name. The texts are what the client sent.
pub type AdoptSpan = Arc<dyn Fn(&Span, &str, &str) + Send + Sync>;

/// The span of a request. It has no path and no header: who writes secrets there does not find them in traces.
pub(crate) fn request(
    parent: &Span,
    id: &RequestId,
    method: &Method,
    route: Option<&str>,
    headers: &HeaderMap,
    adopt: Option<&AdoptSpan>,
) -> Span {
    let method = match method.as_str() {
        word @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => word,
        _ => "_OTHER",
    };
    let span = tracing::trace_span!(
        target: TRACES,
        parent: parent,
        "http",
        otel.name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        http.route = route,
        byzerllm.request.id = %id,
        error.type = Empty,
    );
    if let Some(adopt) = adopt.filter(|_| !span.is_disabled()) {
        let mut parents = headers.get_all("traceparent").iter();
        if let (Some(parent), None) = (parents.next(), parents.next()) {
            let states: Vec<&str> =
                headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok()).collect();
            adopt(&span, parent.to_str().unwrap_or_default(), &states.join(","));
        }
    }
    span
}

/// How the request was answered.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}
