//! The simulator from outside, over plain sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

mod faults;
mod harness;
mod openai;
mod protocols;
