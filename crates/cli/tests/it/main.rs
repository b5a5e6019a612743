//! The command line as scripts see it: help, exit codes, messages, and the life of a deployment.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

mod byzer;
mod canary;
mod completion;
mod doctor;
mod harness;
mod help;
mod keys;
mod ledger;
mod lifecycle;
mod local;
mod messages;
mod models;
mod program;
mod quantize;
mod route;
mod simulate;
#[cfg(feature = "otel")]
mod traces;
