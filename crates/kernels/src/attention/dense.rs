//! Attention of whole texts: each token sees all tokens of its own text, keys and values lie beside the queries.
//!
//! Invariant: sums over values of a head and over keys run in their order, alone in their lanes; so a row does not
//! depend on the other texts, nor on how queries are cut into tasks.
#![expect(unsafe_code, reason = "heads of one row are written by different workers")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::ops::Range;

use super::scores::{ByteScores, ScoreLayout};
use super::weigh::{Weigh, transpose};
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::math::exp;
use crate::matrix::{Compute, InputWriter, ProductInput, load_group};
use crate::memory::{Scratch, Shared, grown};
use crate::norm::{load_some, store_some};
use crate::threads::Turn;

/// What the heads of a layer have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseShape {
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Factor on the dot products.
    pub scale: f32,
}

/// Which tokens of a text are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseQueries {
    /// All: the output has a row per token.
    All,
    /// The first: the output has a row per text.
    First,
}

/// Queries of a task: enough to be worth bringing keys and values into order for them.
const TASK_QUERIES: usize = 256;
/// Queries whose scores are at hand at once.
const BLOCK_QUERIES: usize = 12;
/// Values of a group of the next product's input.
const GROUP: usize = 2 * LANES;

/// Some queries of some heads of one text.
#[derive(Debug, Clone)]
pub(crate) struct DenseTask {
    rows: Range<usize>,
    queries: Range<usize>,
    /// The output row of the first query.
    output: usize,
    heads: Range<usize>,
}

/// Attention of each row of `qkv` over the rows of its text. A row holds the queries of all heads, then the keys, then the
/// values; `lengths` are the texts' rows, one text after the other. The outcome, rows of heads times `head_dim` for the
/// queries that are asked for, is rounded to what the next product reads.
///
/// # Panics
/// When the lengths do not fit, or a text is empty.
pub fn attend_dense(
    turn: &Turn<'_>,
    shape: DenseShape,
    qkv: &[f32],
    lengths: &[usize],
    queries: DenseQueries,
    output: &mut ProductInput,
    scratch: &mut Scratch,
) {
    let DenseShape { heads, head_dim, .. } = shape;
    let width = heads * head_dim;
    let rows: usize = lengths.iter().sum();
    assert!(width > 0 && qkv.len() == 3 * width * rows, "rows have another width, or there are others");
    assert!(!lengths.contains(&0), "a text is empty");
    output.resize(if queries == DenseQueries::All { rows } else { lengths.len() }, width);
    // Whole groups of the output belong to one task.
    let heads_each = (1..=heads).find(|count| (count * head_dim).is_multiple_of(GROUP)).unwrap_or(heads);
    let tasks = &mut scratch.dense_tasks;
    tasks.clear();
    let mut first = 0;
    for (text, &length) in lengths.iter().enumerate() {
        let (asked, output) = match queries {
            DenseQueries::All => (length, first),
            DenseQueries::First => (1, text),
        };
        for head in (0..heads).step_by(heads_each) {
            for start in (0..asked).step_by(TASK_QUERIES) {
                tasks.push(DenseTask {
                    rows: first..first + length,
                    queries: first + start..first + asked.min(start + TASK_QUERIES),
                    output: output + start,
                    heads: head..heads.min(head + heads_each),
                });
            }
        }
        first += length;
    }
    let longest = lengths.iter().copied().max().unwrap_or(0).next_multiple_of(LANES);
    let layout = Layout::new(longest, head_dim, heads_each);
    let bytes = output.compute() == Compute::Fast;
    let work = Shared::new(grown(&mut scratch.work, layout.len * turn.threads()).as_mut_ptr());
    let writer = output.writer();
    let tasks = &scratch.dense_tasks;
    let isa = turn.isa();
    turn.run(tasks.len(), &|index, worker| {
        // SAFETY: each worker has its own part of the work memory, tasks write different groups of the output, and all
        // rows exist.
        unsafe {
            let work = work.at(worker * layout.len);
            dispatch(
                isa,
                Heads { shape, qkv: qkv.as_ptr(), task: &tasks[index], bytes, layout, work, writer },
            );
        }
    });
}

/// Where the parts of a worker's memory begin, in floats.
#[derive(Clone, Copy)]
struct Layout {
    /// Values of a head, filled up to whole vectors.
    padded: usize,
    /// Keys, value by value: (head_dim, keys). Where scores are products of bytes, what these need.
    keys: usize,
    bytes: ScoreLayout,
    /// Values, key by key: (keys, padded).
    values: usize,
    /// Scores of a block of queries: (queries, keys).
    scores: usize,
    /// Sums of a block of queries: (queries, padded).
    sums: usize,
    /// Output of a block of queries: (queries, heads of a task times head_dim, and room for a last vector).
    output: usize,
    output_width: usize,
    len: usize,
}

impl Layout {
    fn new(keys: usize, head_dim: usize, heads: usize) -> Self {
        let padded = head_dim.next_multiple_of(LANES);
        let bytes = ScoreLayout::new(keys, head_dim, BLOCK_QUERIES);
        let values = (padded * keys).max(bytes.len);
        let scores = values + padded * keys;
        let sums = scores + BLOCK_QUERIES * keys;
        let output = sums + BLOCK_QUERIES * padded;
        let output_width = (heads * head_dim).next_multiple_of(LANES) + LANES;
        let len = output + BLOCK_QUERIES * output_width;
        Self { padded, keys: 0, bytes, values, scores, sums, output, output_width, len }
    }
}

struct Heads<'a> {
    shape: DenseShape,
    qkv: *const f32,
    task: &'a DenseTask,
    /// Whether scores are products of bytes.
    bytes: bool,
    layout: Layout,
    work: *mut f32,
    writer: InputWriter,
}

impl Kernel for Heads<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let DenseShape { heads, head_dim, .. } = self.shape;
        let width = heads * head_dim;
        let single = self.task.heads.len() == 1;
        // Several heads in a task are small or odd ones: keys and values are brought into order for each block again.
        if single {
            self.arrange::<L>(self.task.heads.start);
        }
        for start in self.task.queries.clone().step_by(BLOCK_QUERIES) {
            let count = BLOCK_QUERIES.min(self.task.queries.end - start);
            for (index, head) in self.task.heads.clone().enumerate() {
                if !single {
                    self.arrange::<L>(head);
                }
                let queries = self.qkv.add(start * 3 * width + head * head_dim);
                self.block::<L>(queries, count, index * head_dim);
            }
            let first_group = self.task.heads.start * head_dim / GROUP;
            let values = self.task.heads.len() * head_dim;
            for query in 0..count {
                let row = self.task.output + start - self.task.queries.start + query;
                let output = self.work.add(self.layout.output + query * self.layout.output_width);
                let output = std::slice::from_raw_parts(output, values);
                for group in 0..values.div_ceil(GROUP) {
                    let values = load_group::<L>(output, group * GROUP);
                    self.writer.store_group::<L>(row, first_group + group, values);
                }
            }
        }
    }
}

impl Heads<'_> {
    /// Keys, filled up to whole vectors.
    fn padded_keys(&self) -> usize {
        self.task.rows.len().next_multiple_of(LANES)
    }

    /// Scores as products of bytes.
    fn byte_scores(&self) -> ByteScores {
        let work = self.work.wrapping_add(self.layout.keys);
        let (head_dim, keys) = (self.shape.head_dim, self.task.rows.len());
        ByteScores { work, layout: self.layout.bytes, head_dim, keys }
    }

    /// Copies a head's keys, rounded or turned, and its values into the worker's memory; what is filled up are zeros.
    #[inline(always)]
    unsafe fn arrange<L: Lanes>(&self, head: usize) {
        let DenseShape { heads, head_dim, .. } = self.shape;
        let (width, padded) = (heads * head_dim, self.layout.padded);
        let first = self.qkv.add(self.task.rows.start * 3 * width + width + head * head_dim);
        if self.bytes {
            self.byte_scores().round_keys::<L>(first, 3 * width);
        } else {
            self.turn_keys::<L>(first, 3 * width);
        }
        for key in 0..self.task.rows.len() {
            let values = std::slice::from_raw_parts(first.add(key * 3 * width + width), head_dim);
            for at in (0..head_dim).step_by(LANES) {
                let to = self.layout.values + key * padded + at;
                L::store(self.work.add(to), load_some::<L>(values, at));
            }
        }
    }

    #[inline(always)]
    unsafe fn turn_keys<L: Lanes>(&self, first: *const f32, stride: usize) {
        let (head_dim, count, padded_keys) = (self.shape.head_dim, self.task.rows.len(), self.padded_keys());
        for tile in (0..padded_keys).step_by(LANES) {
            for at in (0..head_dim).step_by(LANES) {
                let mut square = [L::splat(0.0); LANES];
                for (lane, key) in square.iter_mut().zip(tile..count) {
                    let row = std::slice::from_raw_parts(first.add(key * stride), head_dim);
                    *lane = load_some::<L>(row, at);
                }
                transpose::<L>(&mut square);
                for (value, keys) in square.into_iter().enumerate() {
                    L::store(self.work.add(self.layout.keys + (at + value) * padded_keys + tile), keys);
                }
            }
        }
    }

    /// Attention of a block of queries over the arranged head; its output goes to `column` of the worker's rows.
    #[inline(always)]
    unsafe fn block<L: Lanes>(&self, queries: *const f32, count: usize, column: usize) {
        let (scores, sums) = (self.work.add(self.layout.scores), self.work.add(self.layout.sums));
        let (padded_keys, padded) = (self.padded_keys(), self.layout.padded);
        let stride = 3 * self.shape.heads * self.shape.head_dim;
        if self.bytes {
            self.byte_scores().rows::<L>(queries, stride, count, self.shape.scale, scores);
        } else {
            let dots = Weigh {
                rows: queries,
                row_stride: stride,
                count: self.shape.head_dim,
                vectors: self.work.add(self.layout.keys),
                vector_stride: padded_keys,
            };
            dots.rows::<L>(count, padded_keys, scores, L::splat(self.shape.scale));
            let (rest, last) = (self.task.rows.len() % LANES, padded_keys.saturating_sub(LANES));
            if rest > 0 {
                for query in 0..count {
                    let at = scores.add(query * padded_keys + last);
                    L::store(at, L::choose_range(0, rest, L::load(at), L::splat(f32::NEG_INFINITY)));
                }
            }
        }
        let mut totals = [0.0; BLOCK_QUERIES];
        for (query, total) in totals[..count].iter_mut().enumerate() {
            *total = softmax::<L>(scores.add(query * padded_keys), padded_keys);
        }
        let values = Weigh {
            rows: scores,
            row_stride: padded_keys,
            count: self.task.rows.len(),
            vectors: self.work.add(self.layout.values),
            vector_stride: padded,
        };
        values.rows::<L>(count, padded, sums, L::splat(1.0));
        for (query, total) in totals[..count].iter().enumerate() {
            let inverse = L::splat(1.0 / total);
            let row = self.layout.output + query * self.layout.output_width + column;
            let output = std::slice::from_raw_parts_mut(self.work.add(row), self.shape.head_dim);
            for at in (0..self.shape.head_dim).step_by(LANES) {
                let sum = L::load(sums.add(query * padded + at));
                store_some::<L>(output, at, L::mul(sum, inverse));
            }
        }
    }
}

/// Exponentials of a row of whole vectors of scores less the greatest one, in place; returns their sum.
#[inline(always)]
unsafe fn softmax<L: Lanes>(scores: *mut f32, count: usize) -> f32 {
    let mut greatest = L::splat(f32::NEG_INFINITY);
    for at in (0..count).step_by(LANES) {
        greatest = L::max(greatest, L::load(scores.add(at)));
    }
    let greatest = L::splat(L::greatest(greatest));
    let mut sum = L::splat(0.0);
    for at in (0..count).step_by(LANES) {
        let weight = exp::<L>(L::sub(L::load(scores.add(at)), greatest));
        L::store(scores.add(at), weight);
        sum = L::add(sum, weight);
    }
    L::sum(sum)
}
