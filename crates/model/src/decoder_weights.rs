//! The weights of a decoder under names of ours, as an architecture file hands them over.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use byzerllm_kernels::{KernelError, TensorType, dequantize};

use crate::weights::integer_matrix::IntegerMatrix;

/// Part of a weight matrix: row-major rows of `columns` values in the encoding `kind`, mapped or owned.
#[derive(Debug, Clone)]
pub struct MatrixPart<'a> {
    /// The encoding.
    pub kind: TensorType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// `rows * kind.row_bytes(columns)` bytes; none where there are `integers`.
    pub data: Cow<'a, [u8]>,
    /// The codes of GPTQ or AWQ, which are brought into the encoding `kind` when they are packed.
    pub integers: Option<IntegerMatrix<'a>>,
    /// Whether `data` holds it column by column, in an encoding of one value at a time.
    pub transposed: bool,
    /// What an adapter adds to it.
    pub low_rank: Option<LowRank<'a>>,
    /// The encoding that it is brought into when it is packed, where that is another one.
    pub target: Option<TensorType>,
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

impl<'a> MatrixPart<'a> {
    /// Rows of one encoding, as they are.
    #[must_use]
    pub fn new(kind: TensorType, rows: usize, columns: usize, data: Cow<'a, [u8]>) -> Self {
        Self { kind, rows, columns, data, integers: None, transposed: false, low_rank: None, target: None }
    }

    /// The order of its columns in which its codes can be packed as they are.
    fn column_order(&self) -> Option<&Arc<[u32]>> {
        self.integers.as_ref().filter(|_| self.low_rank.is_none())?.order()
    }

    /// The encoding of [`Self::merged`]: sums with an adapter, and columns that had another order, are f32.
    #[must_use]
    pub fn packed_kind(&self) -> TensorType {
        let as_it_is = self.low_rank.is_none() && self.column_order().is_none();
        if as_it_is { self.kind } else { TensorType::F32 }
    }

    /// The matrix without its adapter, columns in their own order: bytes and their encoding.
    fn base(&self) -> (TensorType, Cow<'_, [u8]>) {
        match &self.integers {
            None if self.transposed => (self.kind, self.by_rows().into()),
            None => (self.kind, Cow::Borrowed(&self.data)),
            Some(integers) if integers.order().is_some() => (TensorType::F32, integers.values().into()),
            Some(integers) => (self.kind, integers.encode().into()),
        }
    }

    /// The bytes of a transposed matrix row by row.
    fn by_rows(&self) -> Vec<u8> {
        let size = self.data.len() / (self.rows * self.columns).max(1);
        let mut out = Vec::with_capacity(self.data.len());
        for row in 0..self.rows {
            for column in 0..self.columns {
                let at = (column * self.rows + row) * size;
                out.extend_from_slice(&self.data[at..at + size]);
            }
        }
        out
    }

    /// The matrix with its adapter as bytes of [`Self::packed_kind`]: the mapped ones where nothing is to be done.
    ///
    /// # Errors
    /// When a part does not have the bytes that its shape asks for.
    pub fn merged(&self) -> Result<Cow<'_, [u8]>, KernelError> {
        let (kind, data) = self.base();
        let Some(LowRank { rank, scale, down, up }) = &self.low_rank else {
            return Ok(data);
        };
        let mut weights = vec![0.0_f32; self.rows * self.columns];
        let mut a = vec![0.0_f32; rank * self.columns];
        let mut b = vec![0.0_f32; self.rows * rank];
        dequantize(kind, &data, &mut weights)?;
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

impl LinearWeights<'_> {
    /// The order of the input's columns in which all parts can be packed as they are: GPTQ with activation order has
    /// one order for all matrices of one input.
    #[must_use]
    pub fn column_order(&self) -> Option<&Arc<[u32]>> {
        let order = self.parts.first()?.column_order()?;
        self.parts.iter().all(|part| part.column_order() == Some(order)).then_some(order)
    }

    /// The encoding in which each part is packed.
    pub fn packed_kinds(&self) -> impl Iterator<Item = TensorType> {
        self.stored_kinds().zip(&self.parts).map(|(kind, part)| part.target.unwrap_or(kind))
    }

    /// The encoding of each part before it is brought into its target's.
    pub fn stored_kinds(&self) -> impl Iterator<Item = TensorType> {
        let ordered = self.column_order().is_some();
        self.parts.iter().map(move |part| if ordered { part.kind } else { part.packed_kind() })
    }

    /// The bytes of each part, in the encodings of [`Self::stored_kinds`], columns in [`Self::column_order`].
    ///
    /// # Errors
    /// When a part does not have the bytes that its shape asks for.
    pub fn packed_bytes(&self) -> Result<Vec<Cow<'_, [u8]>>, KernelError> {
        let ordered = self.column_order().is_some();
        let bytes = |part| match part {
            &MatrixPart { integers: Some(ref integers), .. } if ordered => Ok(Cow::Owned(integers.encode())),
            part => part.merged(),
        };
        self.parts.iter().map(bytes).collect()
    }
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
