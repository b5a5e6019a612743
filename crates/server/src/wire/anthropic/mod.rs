//! The JSON of Anthropic's Messages API.
//!
//! Source: Anthropic API reference, "Messages", "Streaming Messages", "Count Message tokens" and "Errors".

pub(crate) mod answer;
pub(crate) mod content;
pub(crate) mod request;
pub(crate) mod stream;
