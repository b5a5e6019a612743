//! Local inference: one thread per model that schedules sequences, keeps their keys and values in shared blocks and
//! samples tokens; text is made on the callers' tasks.
//!
//! [`LocalModel`] is the way in. Inside, `scheduler`, `blocks` and `prefix` decide, `engine` does, `answer` tells.

mod answer;
mod blocks;
mod detokenize;
mod engine;
mod error;
mod intake;
mod metrics;
mod model;
mod options;
mod pace;
mod prefix;
mod probe;
mod sampler;
mod scheduler;
mod sequence;
#[cfg(test)]
mod simulation;
mod stop;
mod token_stream;

pub use metrics::EngineMetrics;
pub use model::{LocalModel, ModelText};
pub use options::EngineOptions;
pub use token_stream::{TokenRequest, TokenStream};
