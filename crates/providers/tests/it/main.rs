//! Tests of the crate through its public face.

mod claude;
mod dashscope;
mod gemini;
mod accounting;
mod faults;
mod limits;
mod mini;
mod redaction;
mod minimax;
mod openai_dialect;
mod openai_embeddings;
mod openai_fixtures;
mod qianfan;
mod server;
mod sparkdesk;
mod translation;
mod transport;
