//! The gateway against scripted models: through the router, and over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "what only tests call may fail as tests do"
)]

mod adapters;
mod admin;
mod chat;
mod completions;
mod contract;
mod embeddings;
mod encoders;
mod errors;
mod hostile;
mod intruders;
mod keys;
mod ledger;
mod listening;
mod messages;
mod metrics;
mod native;
mod openapi;
mod played;
mod reference;
mod rerank;
mod responses;
mod routes;
mod socket;
mod support;
mod tls;
mod vendors;
