//! Scores of queries with the keys of a text as products of bytes, for the fast mode: queries and keys are rounded to 8 bits
//! per row and head. Of attention's two products this is the one that bears it: the weights behind the scores spread over
//! many keys, and the small ones among them vanish in 8 bits.
//!
//! Invariant: a score depends on its query and its key alone.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]
#![expect(clippy::needless_range_loop, reason = "unrolled loops walk several register arrays at once")]

use crate::lanes::{LANES, Lanes};
use crate::math::step_and_factor;
use crate::norm::load_some;

/// Values of a head that one lane of a byte product holds.
const WORD: usize = 4;
/// Turns signed codes into codes of which 128 means zero, four at a time.
const TO_OFFSET: u32 = 0x8080_8080;

/// The memory of a head's rounded keys and of a block of rounded queries, in floats from its begin on.
#[derive(Clone, Copy)]
pub(super) struct ScoreLayout {
    /// Words of a row: four values each, filled up to whole vectors of them.
    words: usize,
    /// Codes of the keys, word by word: (words, keys).
    keys: usize,
    /// Steps of the keys.
    steps: usize,
    /// Codes of the queries: (queries, words).
    queries: usize,
    /// Step, and sum of the codes, of each query.
    infos: usize,
    pub(super) len: usize,
}

impl ScoreLayout {
    /// Room for so many keys (whole vectors) of `head_dim` values, and for so many queries.
    pub(super) fn new(keys: usize, head_dim: usize, queries: usize) -> Self {
        let words = head_dim.next_multiple_of(LANES) / WORD;
        let steps = words * keys;
        let first_query = steps + keys;
        let infos = first_query + queries * words;
        Self { words, keys: 0, steps, queries: first_query, infos, len: infos + 2 * queries }
    }
}

/// A head's rounded keys and a block of queries.
pub(super) struct ByteScores {
    /// Memory of [`ScoreLayout::len`] floats.
    pub(super) work: *mut f32,
    pub(super) layout: ScoreLayout,
    pub(super) head_dim: usize,
    /// Keys of the text.
    pub(super) keys: usize,
}

impl ByteScores {
    fn padded_keys(&self) -> usize {
        self.keys.next_multiple_of(LANES)
    }

    /// Rounds the keys of a head, which stand `stride` floats apart.
    ///
    /// # Safety
    /// All keys exist, and nobody else uses the memory.
    #[inline(always)]
    pub(super) unsafe fn round_keys<L: Lanes>(&self, first: *const f32, stride: usize) {
        let padded = self.padded_keys();
        let words = self.work.add(self.layout.keys).cast::<u32>();
        let mut codes = [0_i8; LANES];
        for key in 0..self.keys {
            let row = std::slice::from_raw_parts(first.add(key * stride), self.head_dim);
            let (step, factor) = step_of::<L>(row);
            self.work.add(self.layout.steps + key).write(step);
            for at in (0..self.head_dim).step_by(LANES) {
                let value = L::mul(load_some::<L>(row, at), L::splat(factor));
                L::store_i8(codes.as_mut_ptr(), value);
                for word in 0..LANES / WORD {
                    let code = codes.as_ptr().add(word * WORD).cast::<u32>().read_unaligned();
                    words.add((at / WORD + word) * padded + key).write(code ^ TO_OFFSET);
                }
            }
        }
    }

    /// Scores of `count` queries, which stand `stride` floats apart, times `scale`, with all keys, into rows as long as the
    /// keys filled up to whole vectors. What is filled up scores less than everything.
    ///
    /// # Safety
    /// The queries exist, no more than the layout has room for, the keys are rounded, and nobody else uses the memory.
    #[inline(always)]
    pub(super) unsafe fn rows<L: Lanes>(
        &self,
        queries: *const f32,
        stride: usize,
        count: usize,
        scale: f32,
        to: *mut f32,
    ) {
        for query in 0..count {
            let row = std::slice::from_raw_parts(queries.add(query * stride), self.head_dim);
            let (step, factor) = step_of::<L>(row);
            let codes = self.work.add(self.layout.queries + query * self.layout.words).cast::<i8>();
            let mut sum = 0;
            for at in (0..self.head_dim).step_by(LANES) {
                let value = L::mul(load_some::<L>(row, at), L::splat(factor));
                sum += L::store_i8(codes.add(at), value);
            }
            let info = self.work.add(self.layout.infos + 2 * query);
            info.write(step * scale);
            info.add(1).cast::<i32>().write(sum);
        }
        let mut query = 0;
        while query < count {
            query += match if L::WIDE { (count - query).min(6) } else { (count - query).min(3) } {
                6 => self.block::<L, 6>(query, to),
                3..=5 => self.block::<L, 3>(query, to),
                2 => self.block::<L, 2>(query, to),
                _ => self.block::<L, 1>(query, to),
            };
        }
    }

    #[inline(always)]
    unsafe fn block<L: Lanes, const ROWS: usize>(&self, query: usize, to: *mut f32) -> usize {
        let width = self.padded_keys();
        let mut at = 0;
        while at + 4 * LANES <= width && L::WIDE {
            self.part::<L, ROWS, 4>(query, at, to);
            at += 4 * LANES;
        }
        while at + 2 * LANES <= width && L::WIDE {
            self.part::<L, ROWS, 2>(query, at, to);
            at += 2 * LANES;
        }
        while at < width {
            self.part::<L, ROWS, 1>(query, at, to);
            at += LANES;
        }
        ROWS
    }

    #[inline(always)]
    unsafe fn part<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        &self,
        query: usize,
        at: usize,
        to: *mut f32,
    ) {
        let width = self.padded_keys();
        let codes: [*const i8; ROWS] = std::array::from_fn(|r| {
            self.work.wrapping_add(self.layout.queries + (query + r) * self.layout.words).cast_const().cast()
        });
        let infos = self.work.add(self.layout.infos + 2 * query);
        let mut counts = [[L::splat_i(0); VECTORS]; ROWS];
        if !L::SUBTRACTS_OFFSET {
            for r in 0..ROWS {
                counts[r] = [L::splat_i(-128 * infos.add(2 * r + 1).cast::<i32>().read()); VECTORS];
            }
        }
        let mut keys = self.work.add(self.layout.keys + at).cast_const().cast::<u8>();
        for word in 0..self.layout.words {
            let mut vectors = [L::load_b(keys); VECTORS];
            for v in 1..VECTORS {
                vectors[v] = L::load_b(keys.add(v * LANES * WORD));
            }
            for r in 0..ROWS {
                L::dots_offset::<0, VECTORS>(&mut counts[r], &vectors, codes[r].add(word * WORD));
            }
            keys = keys.wrapping_add(width * WORD);
        }
        let steps = self.work.add(self.layout.steps + at);
        for v in 0..VECTORS {
            let visible = self.keys.saturating_sub(at + v * LANES).min(LANES);
            let steps = L::load(steps.add(v * LANES));
            for r in 0..ROWS {
                let factor = L::mul(steps, L::splat(infos.add(2 * r).read()));
                let score = L::mul(L::to_f32(counts[r][v]), factor);
                let score = L::choose_range(0, visible, score, L::splat(f32::NEG_INFINITY));
                L::store(to.add((query + r) * width + at + v * LANES), score);
            }
        }
    }
}

/// The value of a step of a row that is rounded to 127 steps on either side of zero, and its inverse.
#[inline(always)]
unsafe fn step_of<L: Lanes>(row: &[f32]) -> (f32, f32) {
    let (mut largest, mut broken) = (L::splat(0.0), false);
    for at in (0..row.len()).step_by(LANES) {
        let value = load_some::<L>(row, at);
        largest = L::max(L::abs(value), largest);
        broken |= L::any_nan(value);
    }
    step_and_factor(L::greatest(largest), broken, 127.0)
}
