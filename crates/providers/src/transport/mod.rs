//! Connections to vendors: HTTP, server-sent events, WebSockets, and what is done when they fail.
//!
//! [`Http`] sends one message and gives the head of its answer and a [`Body`] to read. It follows no redirect, takes no
//! proxy from the environment, and keeps connections for the next message. What may be tried again, and whether the
//! vendor may have billed, is said by [`Failure`].

mod body;
mod breaker;
mod connect;
mod connection;
mod failure;
mod http;
mod limits;
mod pool;
mod proxy;
mod retry;
mod tokens;
mod websocket;
mod wire;

pub(crate) use body::{Body, MAX_BODY, MAX_EVENT, Piece, too_large};
pub use breaker::BreakerState;
pub(crate) use breaker::{Breaker, Permit};
pub(crate) use failure::Failure;
pub(crate) use http::{Head, Http, passed};
pub(crate) use limits::{Clock, Limits, Phase};
pub(crate) use retry::{Jitter, retry_after, retry_after_span, wait_before};
pub(crate) use tokens::Tokens;
#[cfg(any(test, fuzzing))]
pub(crate) use wire::beginning;
