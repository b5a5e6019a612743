//! Attention over a paged cache.
//!
//! Invariant: the output of a query depends on its own visible keys alone. Keys are walked in tiles whose borders
//! are absolute positions; keys that a query may not see never enter its sums, not even as zeros times something.
#![expect(unsafe_code, reason = "query tiles write disjoint output rows")]

mod cache;
mod dense;
mod rotation;
mod scores;
mod tile;
mod weigh;

use std::ops::Range;

pub use cache::{CachePlane, CacheShape, CacheType};
pub(crate) use dense::DenseTask;
pub use dense::{DenseQueries, DenseShape, attend_dense};

use crate::lanes::{LANES, dispatch};
use crate::matrix::{InputWriter, ProductInput};
use crate::memory::{Scratch, Shared, grown};
use crate::threads::Turn;
use tile::{Outcome, Tile};

/// The entry of a block table whose block was given back because no query sees it any more.
pub const FREED_BLOCK: u32 = u32::MAX;

/// What the heads of a layer have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Factor on the dot products.
    pub scale: f32,
    /// Bends scores into `-cap..cap`.
    pub soft_cap: Option<f32>,
    /// A query at `p` sees keys after `p - window` only.
    pub window: Option<usize>,
    /// Slope per query head; a score gains slope times (key position - query position), or minus its magnitude
    /// where the key comes later.
    pub alibi_slopes: Option<Vec<f32>>,
}

/// Which keys a query sees, apart from the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Those up to its own position.
    Causal,
    /// All.
    Bidirectional,
    /// Those up to its own position, and the first n.
    Prefix(usize),
}

/// The query rows of one sequence in a batch.
#[derive(Debug, Clone)]
pub struct AttentionSequence<'a> {
    /// Its rows in the batch.
    pub rows: Range<usize>,
    /// The position of the first row; the others follow.
    pub first_position: usize,
    /// Tokens in the cache, these rows included.
    pub length: usize,
    /// Entry i holds positions i * block_tokens and on; [`FREED_BLOCK`] where no query looks any more.
    pub blocks: &'a [u32],
    /// Which keys the rows see.
    pub mask: Mask,
}

/// Query rows times heads of a tile, about: enough to reuse each key and value, few enough to stay in the cache.
const TILE_ROWS: usize = 48;

/// Some queries of one sequence, and some key heads.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    sequence: usize,
    kv_heads: Range<usize>,
    queries: Range<usize>,
}

/// Attention of each query row over its sequence's keys. `queries` has rows of `query_stride` floats with head h at
/// h * head_dim; `output` is (T, heads * head_dim). Rows that belong to no sequence are left as they are.
///
/// # Panics
/// When the shapes do not fit each other, or a sequence names rows, blocks or positions that do not exist.
#[expect(clippy::too_many_arguments, reason = "one call per layer; each argument is a tensor or its shape")]
pub fn attend(
    turn: &Turn<'_>,
    shape: &AttentionShape,
    plane: &CachePlane,
    queries: &[f32],
    query_stride: usize,
    sequences: &[AttentionSequence<'_>],
    output: &mut [f32],
    scratch: &mut Scratch,
) {
    let width = shape.heads * shape.head_dim;
    assert!(width > 0 && output.len().is_multiple_of(width), "output rows have another width");
    let rows = output.len() / width;
    let output = Outcome::Floats(Shared::new(output.as_mut_ptr()));
    attend_to(turn, shape, plane, (queries, query_stride), sequences, (rows, output), scratch);
}

/// Like [`attend`], with output rows that are rounded at once to what the next product reads: `rows` of them.
///
/// # Panics
/// As [`attend`], and when a head does not consist of whole groups of 32 values.
#[expect(clippy::too_many_arguments, reason = "one call per layer; each argument is a tensor or its shape")]
pub fn attend_input(
    turn: &Turn<'_>,
    shape: &AttentionShape,
    plane: &CachePlane,
    queries: &[f32],
    query_stride: usize,
    sequences: &[AttentionSequence<'_>],
    (rows, output): (usize, &mut ProductInput),
    scratch: &mut Scratch,
) {
    assert!(shape.head_dim.is_multiple_of(2 * LANES), "heads do not consist of whole groups");
    output.resize(rows, shape.heads * shape.head_dim);
    let writer: InputWriter = output.writer();
    let output = Outcome::Input(writer);
    attend_to(turn, shape, plane, (queries, query_stride), sequences, (rows, output), scratch);
}

fn attend_to(
    turn: &Turn<'_>,
    shape: &AttentionShape,
    plane: &CachePlane,
    (queries, query_stride): (&[f32], usize),
    sequences: &[AttentionSequence<'_>],
    (rows, output): (usize, Outcome),
    scratch: &mut Scratch,
) {
    check(shape, plane, queries, query_stride, sequences, rows);
    let group = shape.heads / shape.kv_heads;
    let per_tile = (TILE_ROWS / group).max(1);
    let tasks = &mut scratch.tasks;
    tasks.clear();
    // With enough sequences a task walks all heads, so that it knows what comes next and can fetch it.
    let heads_each = if sequences.len() >= 4 * turn.threads() { shape.kv_heads } else { 1 };
    for (index, sequence) in sequences.iter().enumerate() {
        for kv_head in (0..shape.kv_heads).step_by(heads_each) {
            let kv_heads = kv_head..kv_head + heads_each;
            // Later queries see more keys: the long tasks go first.
            for start in (0..sequence.rows.len()).step_by(per_tile).rev() {
                let queries = start..(start + per_tile).min(sequence.rows.len());
                tasks.push(Task { sequence: index, kv_heads: kv_heads.clone(), queries });
            }
        }
    }
    let each = tile::work_len(per_tile.saturating_mul(group), shape.head_dim);
    let work = Shared::new(grown(&mut scratch.work, each * turn.threads()).as_mut_ptr());
    let tasks = &scratch.tasks;
    let isa = turn.isa();
    turn.run(tasks.len(), &|task, worker| {
        let task = &tasks[task];
        // SAFETY: each worker has its own part of the work memory; tasks write the output of different queries or
        // heads; `check` has seen that every row, block and position exists.
        unsafe {
            let tile = Tile {
                shape,
                plane,
                sequence: &sequences[task.sequence],
                kv_head: task.kv_heads.start,
                kv_heads: task.kv_heads.end,
                queries: task.queries.clone(),
                query_rows: queries,
                query_stride,
                output,
                work: work.part(worker * each, each),
            };
            dispatch(isa, tile);
        }
    });
}

fn check(
    shape: &AttentionShape,
    plane: &CachePlane,
    queries: &[f32],
    query_stride: usize,
    sequences: &[AttentionSequence<'_>],
    rows: usize,
) {
    let cache = plane.shape();
    let width = shape.heads * shape.head_dim;
    assert!(
        shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads),
        "heads are no multiple of kv_heads"
    );
    assert!(
        shape.kv_heads == cache.kv_heads && shape.head_dim == cache.head_dim,
        "the cache has another shape"
    );
    assert!(
        shape.alibi_slopes.as_ref().is_none_or(|slopes| slopes.len() == shape.heads),
        "one slope per head"
    );
    assert!(query_stride >= width && width > 0, "query rows are too short");
    for sequence in sequences {
        let count = sequence.rows.len();
        assert!(sequence.rows.end <= rows, "a sequence exceeds the batch");
        assert!(
            count == 0 || (sequence.rows.end - 1) * query_stride + width <= queries.len(),
            "queries are missing"
        );
        assert!(sequence.first_position + count <= sequence.length, "queries lie beyond the sequence");
        assert!(
            sequence.length <= sequence.blocks.len() * cache.block_tokens,
            "the block table is too short"
        );
        let known = |block: &u32| *block == FREED_BLOCK || (*block as usize) < cache.blocks;
        assert!(sequence.blocks.iter().all(known), "a block lies outside the cache");
    }
    // Usually they come in order, and then this needs no memory.
    if sequences.is_sorted_by(|first, second| first.rows.end <= second.rows.start) {
        return;
    }
    let mut spans: Vec<_> =
        sequences.iter().map(|sequence| (sequence.rows.start, sequence.rows.end)).collect();
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "sequences share rows");
}
