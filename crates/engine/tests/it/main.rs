//! The engine from outside: a network whose answers depend on everything it should see, and nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise; clippy excuses only the test functions themselves"
)]

mod adapters;
mod answers;
mod encoder;
mod fake;
mod limits;
mod lives;
mod many;
mod overhead;
mod prefix_context;
mod real;
mod sampling;
mod sharing;
mod structured;
mod text;
mod tools;
