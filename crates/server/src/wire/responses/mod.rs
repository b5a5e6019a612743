//! The JSON of OpenAI's Responses API, as far as it needs no memory of earlier requests.
//!
//! Source: OpenAI API reference, "Responses" and "Streaming events".

pub(crate) mod answer;
mod format;
pub(crate) mod items;
pub(crate) mod request;
pub(crate) mod stream;
mod tools;
