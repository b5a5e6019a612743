//! Encoders: a text becomes one vector, a pair of texts becomes scores.
//!
//! [`EncoderCheckpoint`] reads the files, [`EncoderTokenizer`] turns texts into ids, and an [`Encoder`] computes one
//! row per text: the pooled vector, or the raw logits of a classifier.

mod checkpoint;
mod config;
mod cpu;
mod families;
mod onnx;
mod read;
mod sentence;
mod settings;
mod tokenizer;
mod vocabulary;
mod weights;

use byzerllm_core::Result;

pub use checkpoint::{EncoderCheckpoint, task_of};
pub use config::{DenseConfig, EncoderConfig, EncoderHead, EncoderPositions, HeadActivation, Pooling};
pub use cpu::CpuEncoder;
pub(crate) use families::{EncoderFamily, FAMILIES};
pub use onnx::{OnnxOptions, OnnxReport, convert_onnx_bert};
pub use settings::{EncoderSettings, Origin, Similarity};
pub use tokenizer::{EncodedInput, EncoderTokenizer};
pub use weights::{EncoderLayerWeights, EncoderWeights};

use crate::batch::Rows;
use crate::work::EncoderWork;

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Writes text.
    Generate,
    /// Turns texts into vectors.
    Embed,
    /// Scores pairs of texts: a classifier that reads both at once.
    Rerank,
}

impl Task {
    /// The word that options, status and documents use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
        }
    }
}

/// What callers must know of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderTraits {
    /// What its rows are for; never [`Task::Generate`].
    pub task: Task,
    /// Values of a row: the width of the vector, or the number of labels.
    pub width: usize,
    /// Tokens of the longest input, special tokens included.
    pub max_length: usize,
    /// Ids below this one can be asked for.
    pub vocab_size: usize,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    /// The compute path in words.
    pub compute: String,
}

/// One text, or one pair of texts, with the model's special tokens.
#[derive(Debug, Clone, Copy)]
pub struct EncoderInput<'a> {
    /// Token ids; at least one.
    pub ids: &'a [u32],
    /// As many token types.
    pub types: &'a [u8],
}

/// An encoder that can compute.
///
/// A returned row is bitwise independent of what else is in the batch and of the order.
pub trait Encoder: Send {
    /// What callers must know.
    fn traits(&self) -> &EncoderTraits;

    /// How much work its steps are, for measurements; `None` when nobody counted.
    fn work(&self) -> Option<EncoderWork> {
        None
    }

    /// Computes one row per sequence, in their order: the pooled vector (scaled to unit length where the model says
    /// so), or a classifier's raw logits.
    ///
    /// # Errors
    /// `InvalidRequest` for a sequence that is empty or too long, or has an id, a type or a number of types that the
    /// model does not have; `Unavailable` when memory cannot be had.
    fn encode(&mut self, sequences: &[EncoderInput<'_>]) -> Result<Rows<'_>>;
}
