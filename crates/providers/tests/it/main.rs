//! Tests of the crate through its public face.

mod mini;
mod server;
mod transport;
