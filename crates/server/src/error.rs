//! From [`byzerllm_core::Error`] to an HTTP answer.
//!
//! Handlers return [`ApiError`]; it travels to [`finish`] as a response extension, which alone writes
//! the body, so that axum's own refusals, a guard's and a handler's look the same: OpenAI's shape, on our own routes the
//! whole error beside it, and on Anthropic's routes theirs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse, Response};
use byzerllm_core::{Error, ErrorKind, RequestId};
use tracing::Instrument;

use crate::state::AppState;
use crate::traces;
use crate::wire::error::{AnthropicErrorBody, ErrorBody};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A vendor's own id of the request.
pub(crate) static VENDOR_REQUEST_ID: HeaderName = HeaderName::from_static("x-vendor-request-id");

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) error: Error,
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { error, status, code: kind.code() }
    }
}

impl ApiError {
    /// An error of HTTP rather than of a request's content, with a status and a code of its own.
    pub(crate) fn http(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Overloaded,
            status if status.is_server_error() => ErrorKind::Internal,
            _ => ErrorKind::InvalidRequest,
        };
        Self { error: Error::new(kind, message.into()), status, code }
    }

    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.error = self.error.with_retry_after(after);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Failure(Arc::new(self)));
        response
    }
}

#[derive(Clone)]
struct Failure(Arc<ApiError>);

/// Changes the error that an answer carries, if it carries one.
pub(crate) fn mask(mut response: Response, change: impl FnOnce(Error) -> Error) -> Response {
    let Some(Failure(failure)) = response.extensions_mut().remove::<Failure>() else { return response };
    let changed = change(failure.error.duplicate());
    if changed.kind() == failure.error.kind() && changed.message() == failure.error.message() {
        response.extensions_mut().insert(Failure(failure));
        return response;
    }
    ApiError::from(changed).into_response()
}

/// The request's id, from the extensions that [`finish`] fills.
pub(crate) fn request_id(extensions: &Extensions) -> RequestId {
    extensions.get::<RequestId>().cloned().unwrap_or_else(RequestId::generate)
}

/// What stands around every answer: gives the request its id and spans, lets in what may come here at all, writes every
/// error body, and counts.
pub(crate) async fn finish(
    state: &AppState,
    mut request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let id = RequestId::generate();
    let path = request.uri().path();
    let shape = Shape::of(path);
    let label = path.char_indices().nth(120).map_or(path, |(end, _)| &path[..end]).to_owned();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let span = tracing::info_span!("request", %id, %method, path = %label);
    let trace = traces::request(&span, &id, &method, route, request.headers(), state.adopt_span.as_ref());
    request.extensions_mut().insert(id.clone());
    let answer = async {
        match state.guard.check(&request) {
            Ok(()) => answer(request).await,
            Err(refusal) => refusal.into_response(),
        }
    };
    let mut response = answer.instrument(trace.clone()).instrument(span.clone()).await;
    let failure = response.extensions_mut().remove::<Failure>().map(|failure| failure.0);
    if let Some(failure) = failure.or_else(|| own_words(&response, &method, &label)) {
        span.in_scope(|| log(&failure.error));
        response = render(&failure, &response, shape, &id);
    }
    traces::answered(&trace, response.status());
    state.http_metrics.count(route, &method, response.status());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID.clone(), value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Logs a failure, once, where it leaves the server.
pub(crate) fn log(error: &Error) {
    let (code, source) = (error.kind().code(), std::error::Error::source(error));
    match error.kind() {
        ErrorKind::Internal | ErrorKind::Upstream => {
            tracing::error!(code, source, message = error.message());
        }
        ErrorKind::Unavailable | ErrorKind::Overloaded => tracing::info!(code, "request refused"),
        _ => tracing::debug!(code, "request refused"),
    }
}

/// Puts an error that axum itself made into our words.
fn own_words(response: &Response, method: &axum::http::Method, path: &str) -> Option<Arc<ApiError>> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    Some(Arc::new(match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed =
                response.headers().get("allow").and_then(|value| value.to_str().ok()).unwrap_or("none");
            let message = format!("{method} is not allowed on {path}; allowed: {allowed}");
            ApiError::http(status, "method_not_allowed", message)
        }
        _ => {
            let reason = status.canonical_reason().unwrap_or("the request failed");
            ApiError::http(status, "http_error", format!("{reason}: {method} {path}"))
        }
    }))
}

/// In whose words an error is written.
#[derive(Clone, Copy)]
enum Shape {
    OpenAi,
    /// OpenAI's, and the whole error beside it.
    Native,
    Anthropic,
}

impl Shape {
    fn of(path: &str) -> Self {
        if path.starts_with("/byzerllm/") {
            Self::Native
        } else if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }
}

/// Writes the body; headers that were there stay (`Allow`).
fn render(failure: &ApiError, old: &Response, shape: Shape, id: &RequestId) -> Response {
    let (error, code) = (&failure.error, failure.code);
    let mut response = match shape {
        Shape::OpenAi => Json(ErrorBody::new(error, code, false)).into_response(),
        Shape::Native => Json(ErrorBody::new(error, code, true)).into_response(),
        Shape::Anthropic => Json(AnthropicErrorBody::new(error, Some(code), Some(id))).into_response(),
    };
    *response.status_mut() = failure.status;
    let headers = response.headers_mut();
    if let Some(Ok(id)) = error.vendor_request_id().map(HeaderValue::from_str) {
        headers.insert(VENDOR_REQUEST_ID.clone(), id);
    }
    if let Some(allow) = old.headers().get("allow") {
        headers.insert("allow", allow.clone());
    }
    let waiting = matches!(failure.status, StatusCode::TOO_MANY_REQUESTS);
    let after = failure.error.retry_after().or(waiting.then_some(Duration::from_secs(1)));
    if let Some(after) = after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if failure.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
