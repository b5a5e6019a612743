//! HTTP client of a byzerllm server: admin and inference; and the file in which a server tells where it is.
//!
//! [`Client`] speaks the server's own routes. [`openai`] measures any server that speaks OpenAI's. [`sse`] and [`tls`]
//! are what every client of a model server needs.

mod client;
mod encoders;
mod http;
mod ledger;
pub mod openai;
pub mod runtime_file;
pub mod sse;
pub mod tls;

pub use client::Client;
