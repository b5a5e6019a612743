//! Local inference: one thread per model that schedules sequences, keeps their keys and values in shared blocks and
//! samples tokens; text is made on the callers' tasks.
//!
//! [`LocalModel`] is the way in. Inside, `scheduler`, `blocks` and `prefix` decide, `engine` does, `answer` tells.

mod adapters;
mod adjust;
mod answer;
mod blocks;
mod compiler;
mod constraint;
mod detokenize;
mod encoder;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod intake;
#[cfg(any(test, feature = "measure"))]
#[doc(hidden)]
pub mod measure;
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
mod tools;

pub use adapters::{AdapterStatus, unknown as unknown_adapter};
pub use encoder::{EncoderOptions, EncoderText, LocalEncoder, Matryoshka};
pub use metrics::EngineMetrics;
pub use model::{LocalModel, ModelText};
pub use options::EngineOptions;
pub use token_stream::{TokenRequest, TokenStream};
