//! Checks of the workspace itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod layering;
