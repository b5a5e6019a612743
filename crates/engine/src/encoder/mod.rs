//! Vectors and scores: one thread owns the network and computes the texts of all requests in shared steps.
//!
//! [`LocalEncoder`] is the way in. Callers tokenize, `queue` decides what the next step computes, `worker` computes it.
//! Nothing waits for a step to fill up: an idle network takes what is there, and what arrives meanwhile makes the next
//! step larger.

mod desk;
mod input;
mod model;
mod options;
mod probe;
mod queue;
#[cfg(test)]
mod tests;
mod worker;

pub use model::LocalEncoder;
pub use options::{EncoderOptions, EncoderText, Matryoshka};
