//! The OpenAI-compatible HTTP gateway.
//!
//! Wire JSON becomes a [`byzerllm_core::ChatRequest`], the runtime answers with an event stream, and the stream
//! becomes server-sent events or, folded, one body. Every route is listed once, in [`routes()`], with who may call it.
//! One layer guards all of them: Host, Origin, content type, credential and scopes.

mod answer;
mod auth;
mod body;
mod caller;
mod connections;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
mod metrics;
mod openapi;
mod patience;
mod router;
mod routes;
mod server;
mod sse;
mod state;
mod tls;
mod traces;
mod turns;
mod wire;

pub use openapi::openapi;
pub use router::{Access, RouteInfo, router, routes};
pub use server::{Server, Timeouts, bind};
pub use state::{ServerOptions, TlsFiles};
pub use tls::check_tls;
pub use traces::AdoptSpan;
