//! `GET /openapi.json`.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// What this server can be asked. The same for everyone: no deployment and no secret is in it.
pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], crate::openapi::bytes()).into_response()
}
