//! Tests of the crate through its public face.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "what only tests call may fail as tests do"
)]

mod accounting;
mod claude;
mod conformance;
mod connections;
mod dashscope;
mod faults;
mod gemini;
mod limits;
mod mini;
mod minimax;
mod openai_dialect;
mod openai_embeddings;
mod openai_fixtures;
mod openai_refusals;
mod parameters;
mod qianfan;
mod redaction;
mod secure;
mod server;
mod sparkdesk;
mod translation;
mod transport;
mod vendor_pages;
