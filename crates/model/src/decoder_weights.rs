//! The weights of a decoder under names of ours, as an architecture file hands them over.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use byzerllm_kernels::{KernelError, TensorType, dequantize};

/// Part of a weight matrix: row-major rows of `columns` values in the encoding `kind`, mapped or owned.
#[derive(Debug, Clone)]
pub struct MatrixPart<'a> {
    /// The encoding.
    pub kind: TensorType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// `rows * kind.row_bytes(columns)` bytes.
    pub data: Cow<'a, [u8]>,
    /// What an adapter adds to it.
    pub low_rank: Option<LowRank<'a>>,
}

/// A product of two thin matrices that is added to a weight: `W + scale * B A`.
#[derive(Debug, Clone)]
pub struct LowRank<'a> {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The factor.
    pub scale: f32,
    /// `A`, `(rank, columns)`, with its encoding.
    pub down: (TensorType, Cow<'a, [u8]>),
    /// `B`, `(rows, rank)`, with its encoding.
    pub up: (TensorType, Cow<'a, [u8]>),
}

impl MatrixPart<'_> {
    /// The encoding in which it is packed: a sum with an adapter is one of f32.
    #[must_use]
    pub fn packed_kind(&self) -> TensorType {
        if self.low_rank.is_some() { TensorType::F32 } else { self.kind }
    }

    /// The matrix with its adapter as bytes of [`Self::packed_kind`]: the mapped ones when there is no adapter.
    ///
    /// # Errors
    /// When a part does not have the bytes that its shape asks for.
    pub fn merged(&self) -> Result<Cow<'_, [u8]>, KernelError> {
        let Some(LowRank { rank, scale, down, up }) = &self.low_rank else {
            return Ok(Cow::Borrowed(&self.data));
        };
        let mut weights = vec![0.0_f32; self.rows * self.columns];
        let mut a = vec![0.0_f32; rank * self.columns];
        let mut b = vec![0.0_f32; self.rows * rank];
        dequantize(self.kind, &self.data, &mut weights)?;
        dequantize(down.0, &down.1, &mut a)?;
        dequantize(up.0, &up.1, &mut b)?;
        for (row, factors) in weights.chunks_exact_mut(self.columns).zip(b.chunks_exact(*rank)) {
            for (factor, values) in factors.iter().zip(a.chunks_exact(self.columns)) {
                let factor = factor * scale;
                row.iter_mut().zip(values).for_each(|(weight, value)| *weight += factor * value);
            }
        }
        Ok(Cow::Owned(weights.iter().flat_map(|value| value.to_le_bytes()).collect()))
    }
}

/// Bytes that outlive the checkpoint which mapped them.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The part `range` of `owner`'s bytes; `None` when it does not lie inside.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({:?})", self.range)
    }
}

/// A table whose rows are looked up one by one. It stays in its mapped form: a step reads a few rows of it.
#[derive(Debug, Clone)]
pub struct LookupTable {
    /// The encoding.
    pub kind: TensorType,
    /// Entries.
    pub rows: usize,
    /// Values per entry.
    pub columns: usize,
    /// `rows * kind.row_bytes(columns)` bytes.
    pub data: SharedBytes,
}

/// `y = x Wᵀ + b`; the parts are stacked along the output features (queries, keys, values; gate, up).
#[derive(Debug, Clone)]
pub struct LinearWeights<'a> {
    /// The stacked parts.
    pub parts: Vec<MatrixPart<'a>>,
    /// As many values as all parts have rows.
    pub bias: Option<Vec<f32>>,
}

/// Weight and bias of a normalization layer.
#[derive(Debug, Clone)]
pub struct NormWeights {
    /// One factor per feature.
    pub weight: Vec<f32>,
    /// One addend per feature.
    pub bias: Option<Vec<f32>>,
}

/// The feed-forward weights of one layer or of one expert.
#[derive(Debug, Clone)]
pub struct MlpWeights<'a> {
    /// Gate and up stacked when gated, else up alone.
    pub up: LinearWeights<'a>,
    /// Back to the residual width.
    pub down: LinearWeights<'a>,
}

/// The weights of one layer.
#[derive(Debug, Clone)]
pub struct LayerWeights<'a> {
    /// Before attention.
    pub attention_norm: Option<NormWeights>,
    /// After attention (Gemma 2, OLMo 2).
    pub attention_post_norm: Option<NormWeights>,
    /// Before the feed-forward part; absent when a parallel layer shares the first one.
    pub mlp_norm: Option<NormWeights>,
    /// After the feed-forward part.
    pub mlp_post_norm: Option<NormWeights>,
    /// Queries, keys and values stacked: `heads + 2 * kv_heads` times `head_dim` rows.
    pub qkv: LinearWeights<'a>,
    /// Per-head normalization of queries, `head_dim` values.
    pub query_norm: Option<NormWeights>,
    /// Per-head normalization of keys.
    pub key_norm: Option<NormWeights>,
    /// Attention output.
    pub out: LinearWeights<'a>,
    /// One entry, or one per expert.
    pub mlp: Vec<MlpWeights<'a>>,
    /// Scores of the experts.
    pub router: Option<LinearWeights<'a>>,
}

/// All weights of a decoder.
#[derive(Debug, Clone)]
pub struct DecoderWeights<'a> {
    /// `(vocab, hidden)`.
    pub embedding: LookupTable,
    /// Learned positions `(positions, hidden)`.
    pub positions: Option<LookupTable>,
    /// After the embedding.
    pub embedding_norm: Option<NormWeights>,
    /// The layers.
    pub layers: Vec<LayerWeights<'a>>,
    /// Before the head.
    pub final_norm: NormWeights,
    /// The output head, when it is not the embedding table.
    pub head: Option<LinearWeights<'a>>,
}
