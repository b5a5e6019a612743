//! What goes into one step of a network and what comes out, as host slices.

use byzerllm_kernels::Mask;

/// Sequences laid end to end. The same shape serves prefill, decode and embedding; `T` is the number of tokens.
#[derive(Debug, Clone, Copy)]
pub struct PackedBatch<'a> {
    /// Token ids `(T)`.
    pub ids: &'a [u32],
    /// Rows whose input embedding is given instead of looked up (image or audio features).
    pub embeddings: Option<InputEmbeddings<'a>>,
    /// Positions `(T, P)`, `P` being the network's position width.
    pub positions: &'a [u32],
    /// The sequences; together they cover all `T` rows in order.
    pub sequences: &'a [SequenceInput<'a>],
    /// Which rows to return.
    pub rows: &'a [u32],
    /// What to return of them.
    pub output: Output,
}

/// Given input embeddings.
#[derive(Debug, Clone, Copy)]
pub struct InputEmbeddings<'a> {
    /// Rows of the batch, ascending.
    pub rows: &'a [u32],
    /// Their embeddings `(rows, hidden)`.
    pub values: &'a [f32],
}

/// One sequence's part of a batch.
#[derive(Debug, Clone, Copy)]
pub struct SequenceInput<'a> {
    /// Its first row in the batch.
    pub start: usize,
    /// Its rows in the batch; their places in the cache are consecutive.
    pub count: usize,
    /// Tokens already in the cache: the place of its first row.
    pub past: usize,
    /// Per cache group, the blocks that hold places `i * block_tokens ..`; [`FREED`] where a window has passed.
    pub block_tables: &'a [&'a [u32]],
    /// Who sees whom.
    pub mask: Mask,
    /// The adapter (LoRA) slot of its rows.
    pub adapter: Option<u32>,
    /// The slot of its cross-attention cache, which is written once, by the step that gives the encoder's states.
    pub cross_cache: Option<u32>,
}

/// A block table entry whose block was freed because no query can see it any more.
pub const FREED: u32 = u32::MAX;

/// What to return of the selected rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// `(rows, vocab)`.
    Logits,
    /// `(rows, hidden)`, after the final normalization.
    Hidden,
}

/// The result of a step, in the host memory that the network owns until its next step.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    /// Wraps `(rows, width)` values.
    #[must_use]
    pub fn new(values: &'a [f32], width: usize) -> Self {
        debug_assert!(width > 0 && values.len().is_multiple_of(width));
        Self { values, width }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// One row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}
