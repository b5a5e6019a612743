//! Models are got from a local server that speaks the hubs' APIs, and behaves as badly as networks and servers do.

#![expect(clippy::unwrap_used, reason = "a test may fail so")]

mod cache;
mod hostile;
mod hubs;
mod network;
mod packages;
mod server;
mod world;
