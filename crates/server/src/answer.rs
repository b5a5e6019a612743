//! A whole answer as JSON.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use byzerllm_core::{Error, Result};
use serde::Serialize;

/// What most answers need at most beside their texts, in bytes.
const USUAL: usize = 1 << 10;

/// Writes an answer in one go, into one buffer.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::Internal`] for what cannot be written as JSON, which none of our types is.
pub(crate) fn json(answer: &impl Serialize) -> Result<Response> {
    let mut text = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut text, answer)
        .map_err(|error| Error::internal("the answer cannot be written as JSON").with_source(error))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
