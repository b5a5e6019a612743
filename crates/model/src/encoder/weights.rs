//! The weights of an encoder under names of ours, as a family's file hands them over.

use crate::decoder_weights::{LinearWeights, LookupTable, NormWeights};

/// All weights of an encoder. Every normalization layer has a bias.
#[derive(Debug, Clone)]
pub struct EncoderWeights<'a> {
    /// `(vocab, hidden)`.
    pub words: LookupTable,
    /// Learned positions `(rows, hidden)`.
    pub positions: Option<LookupTable>,
    /// Token types `(types, hidden)`.
    pub token_types: Option<LookupTable>,
    /// After the sum of the embeddings.
    pub embedding_norm: NormWeights,
    /// The layers.
    pub layers: Vec<EncoderLayerWeights<'a>>,
    /// One per entry of [`super::EncoderHead::dense`].
    pub dense: Vec<LinearWeights<'a>>,
}

/// The weights of one layer.
#[derive(Debug, Clone)]
pub struct EncoderLayerWeights<'a> {
    /// Queries, keys and values stacked: 3 times `heads * head_dim` rows.
    pub qkv: LinearWeights<'a>,
    /// Attention output.
    pub out: LinearWeights<'a>,
    /// After attention was added to its input.
    pub attention_norm: NormWeights,
    /// Into the feed-forward part; gate and up stacked when gated.
    pub up: LinearWeights<'a>,
    /// Back to the residual width.
    pub down: LinearWeights<'a>,
    /// After the feed-forward part was added to its input.
    pub output_norm: NormWeights,
}
