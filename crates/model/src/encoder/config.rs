//! What an encoder network looks like, as data: layers of attention over the whole text, one output row per text.

use byzerllm_kernels::Activation;

use super::Task;
use crate::rope::RopeConfig;

/// An encoder: embeddings, layers whose normalization follows each block (BERT, arXiv:1810.04805), pooling, head.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// What its rows are for.
    pub task: Task,
    /// Rows of the table of tokens.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers, all alike.
    pub layers: usize,
    /// Attention heads; `heads * head_dim` is the width of queries, keys and values.
    pub heads: usize,
    /// Width of a head. Scores are scaled by its inverse root.
    pub head_dim: usize,
    /// Inner width of the feed-forward part.
    pub intermediate_size: usize,
    /// Its nonlinearity.
    pub activation: Activation,
    /// Whether a gate multiplies the activated half: `up` then holds gate and up stacked (nomic-bert).
    pub gated: bool,
    /// Added under the root of every normalization layer (mean and variance).
    pub norm_epsilon: f32,
    /// How positions enter.
    pub positions: EncoderPositions,
    /// Rows of the table of token types; 0 when the family has none.
    pub token_types: usize,
    /// Tokens of the longest input, special tokens included.
    pub max_length: usize,
    /// From the states of all tokens to the output row.
    pub head: EncoderHead,
}

/// How positions enter an encoder.
#[derive(Debug, Clone, PartialEq)]
pub enum EncoderPositions {
    /// A learned row is added to each embedding: the token at place `i` takes row `i + offset`.
    Learned {
        /// Rows of the table.
        rows: usize,
        /// The row of the first token (RoBERTa: 2).
        offset: usize,
    },
    /// Rotary embedding of queries and keys.
    Rope(RopeConfig),
}

/// The steps after the last layer, in order: poolings side by side, dense layers, scaling to unit length.
///
/// A classifier is the same thing: the first token's state, a dense layer with `tanh`, a dense layer to the labels.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderHead {
    /// At least one; several are concatenated in this order.
    pub pooling: Vec<Pooling>,
    /// Dense layers, each of which reads what the one before wrote.
    pub dense: Vec<DenseConfig>,
    /// Whether the row is scaled to unit length.
    pub normalize: bool,
}

/// How the states of all tokens of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// Their mean.
    Mean,
    /// The largest value of each feature.
    Max,
    /// The last token's.
    LastToken,
    /// Their sum over the root of their number.
    MeanSqrtLength,
}

/// A dense layer of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseConfig {
    /// Values that it reads.
    pub inputs: usize,
    /// Values that it writes.
    pub outputs: usize,
    /// Its nonlinearity.
    pub activation: HeadActivation,
}

/// The nonlinearity of a dense layer of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadActivation {
    /// None.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// x where positive, else zero.
    Relu,
    /// x times the normal distribution's integral up to x.
    Gelu,
    /// The logistic function.
    Sigmoid,
}

impl Pooling {
    /// Its name in configurations of sentence-transformers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::Max => "max",
            Self::LastToken => "lasttoken",
            Self::MeanSqrtLength => "mean_sqrt_len_tokens",
        }
    }
}

impl EncoderHead {
    /// Values of an output row of a network of this width.
    #[must_use]
    pub fn width(&self, hidden_size: usize) -> usize {
        self.dense.last().map_or(hidden_size * self.pooling.len(), |layer| layer.outputs)
    }
}

impl EncoderConfig {
    /// Values of an output row: the width of the vector, or the number of labels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.head.width(self.hidden_size)
    }
}
