//! The attention of a few queries over all keys they see, with a running maximum and sum.
#![expect(unsafe_code, reason = "innermost loops over raw tiles")]
#![expect(clippy::needless_range_loop, reason = "unrolled loops walk several register arrays at once")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::ops::Range;

use super::{AttentionSequence, AttentionShape, CachePlane, CacheType, FREED_BLOCK, Mask};
use crate::lanes::{Kernel, LANES, Lanes};
use crate::math::{exp, tanh};
use crate::memory::Shared;
use crate::norm::{load_some, store_some};

/// Tiles of keys between two updates of the running maximum.
const STEP_TILES: usize = 4;
const STEP: usize = STEP_TILES * LANES;

/// The queries of a tile: consecutive rows of one sequence times the query heads of one key head.
pub(super) struct Tile<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) plane: &'a CachePlane,
    pub(super) sequence: &'a AttentionSequence<'a>,
    pub(super) kv_head: usize,
    pub(super) queries: Range<usize>,
    pub(super) query_rows: &'a [f32],
    pub(super) query_stride: usize,
    pub(super) output: Shared<f32>,
    pub(super) work: &'a mut [f32],
}

/// Floats of work memory for a tile of so many rows (queries times heads).
pub(super) fn work_len(rows: usize, head_dim: usize) -> usize {
    rows * (head_dim + STEP + head_dim.div_ceil(LANES) * LANES + LANES + 2)
}

/// The work memory of a tile, one line per row.
struct Work {
    /// Scaled queries, `head_dim` each.
    queries: *mut f32,
    /// Scores, then weights, of a step.
    weights: *mut f32,
    /// Sums of weighted values, padded.
    sums: *mut f32,
    /// Sums of weights, per lane.
    totals: *mut f32,
    /// Greatest score so far.
    peaks: *mut f32,
    /// Factor that the sums need because the greatest score changed.
    factors: *mut f32,
}

/// Sixteen key positions that lie in one block.
#[derive(Clone, Copy, Default)]
struct Keys {
    /// First position.
    start: usize,
    /// Positions that exist.
    len: usize,
    keys: usize,
    values: usize,
}

impl Keys {
    /// The lanes with positions in `low..high`.
    #[inline(always)]
    fn lanes(&self, visible: &Range<usize>) -> Range<usize> {
        let low = visible.start.saturating_sub(self.start).min(self.len);
        let high = visible.end.saturating_sub(self.start).min(self.len);
        low..high.max(low)
    }
}

impl Kernel for Tile<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        match self.plane.shape().kind {
            CacheType::F32 => self.attend::<L, false>(),
            CacheType::F16 => self.attend::<L, true>(),
        }
    }
}

impl Tile<'_> {
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    fn position(&self, row: usize) -> usize {
        self.sequence.first_position + self.queries.start + row / self.group()
    }

    /// The positions that a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let position = self.position(row);
        let end = match self.sequence.mask {
            Mask::Causal => position + 1,
            Mask::Bidirectional => self.sequence.length,
            Mask::Prefix(prefix) => prefix.max(position + 1),
        };
        let start = self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
        start..end.min(self.sequence.length).max(start)
    }

    #[inline(always)]
    unsafe fn attend<L: Lanes, const HALF: bool>(&mut self) {
        let rows = self.queries.len() * self.group();
        let work = self.prepare(rows);
        let cache = *self.plane.shape();
        // Rows see more and later keys from first to last, so the union is that of the two ends.
        let (first, last) = (self.visible(0), self.visible(rows - 1));
        let (low, high) = (first.start.min(last.start), first.end.max(last.end));
        let tiles = cache.tiles();
        let tile_of =
            |position: usize| position / cache.block_tokens * tiles + position % cache.block_tokens / LANES;
        if low < high {
            let begin = tile_of(low) / STEP_TILES * STEP_TILES;
            for step in (begin..=tile_of(high - 1)).step_by(STEP_TILES) {
                let mut keys = [Keys::default(); STEP_TILES];
                for (place, keys) in keys.iter_mut().enumerate() {
                    *keys = self.locate(step + place);
                }
                self.step::<L, HALF>(&keys, rows, &work);
            }
        }
        self.finish::<L>(rows, &work);
    }

    /// Scales the queries and clears the sums.
    unsafe fn prepare(&mut self, rows: usize) -> Work {
        let dim = self.shape.head_dim;
        let padded = self.plane.shape().padded_dim();
        debug_assert!(self.work.len() >= work_len(rows, dim));
        let queries = self.work.as_mut_ptr();
        let weights = queries.add(rows * dim);
        let sums = weights.add(rows * STEP);
        let totals = sums.add(rows * padded);
        let peaks = totals.add(rows * LANES);
        let factors = peaks.add(rows);
        let group = self.group();
        for row in 0..rows {
            let head = self.kv_head * group + row % group;
            let at = (self.sequence.rows.start + self.queries.start + row / group) * self.query_stride
                + head * dim;
            for (index, value) in self.query_rows[at..at + dim].iter().enumerate() {
                *queries.add(row * dim + index) = value * self.shape.scale;
            }
            *peaks.add(row) = f32::NEG_INFINITY;
        }
        std::ptr::write_bytes(sums, 0, rows * padded);
        std::ptr::write_bytes(totals, 0, rows * LANES);
        Work { queries, weights, sums, totals, peaks, factors }
    }

    /// Where tile number `tile` of the sequence lies; empty when it does not exist.
    fn locate(&self, tile: usize) -> Keys {
        let cache = self.plane.shape();
        let (index, tile) = (tile / cache.tiles(), tile % cache.tiles());
        match self.sequence.blocks.get(index) {
            Some(&block) if block != FREED_BLOCK => Keys {
                start: index * cache.block_tokens + tile * LANES,
                len: LANES.min(cache.block_tokens - tile * LANES),
                keys: self.plane.keys_at(block, self.kv_head, tile),
                values: self.plane.values_at(block, self.kv_head, tile),
            },
            _ => Keys::default(),
        }
    }

    /// Takes up to 64 keys into account.
    #[inline(always)]
    unsafe fn step<L: Lanes, const HALF: bool>(&self, keys: &[Keys; STEP_TILES], rows: usize, work: &Work) {
        let mut row = 0;
        if L::WIDE {
            while row + 4 <= rows {
                self.scores::<L, HALF, 4>(keys, row, work);
                row += 4;
            }
        }
        while row < rows {
            self.scores::<L, HALF, 1>(keys, row, work);
            row += 1;
        }
        // Whole steps of neighbouring rows share their pass over the values; the others walk their own lanes.
        let mut row = 0;
        while row < rows {
            let whole = (row..rows.min(row + 6)).take_while(|row| self.sees_all(keys, *row)).count();
            match whole {
                0 => {
                    self.weigh_some::<L, HALF>(keys, row, work);
                    row += 1;
                }
                6 if L::WIDE => {
                    self.weigh_all::<L, HALF, 6>(keys, row, work);
                    row += 6;
                }
                3..=6 => {
                    self.weigh_all::<L, HALF, 3>(keys, row, work);
                    row += 3;
                }
                _ => {
                    self.weigh_all::<L, HALF, 1>(keys, row, work);
                    row += 1;
                }
            }
        }
    }

    #[inline(always)]
    fn sees_all(&self, keys: &[Keys; STEP_TILES], row: usize) -> bool {
        let visible = self.visible(row);
        keys.iter().all(|keys| keys.lanes(&visible) == (0..LANES))
    }

    /// Scores of `ROWS` rows with 64 keys, turned into weights, with the new peaks, factors and totals.
    #[inline(always)]
    unsafe fn scores<L: Lanes, const HALF: bool, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) {
        let dim = self.shape.head_dim;
        let mut scores = [[L::splat(0.0); STEP_TILES]; ROWS];
        let queries = work.queries.add(row * dim);
        for index in 0..dim {
            let key: [L::F; STEP_TILES] =
                std::array::from_fn(|tile| self.load::<L, HALF>(keys[tile].keys + index * LANES));
            for r in 0..ROWS {
                let query = L::splat(*queries.add(r * dim + index));
                for tile in 0..STEP_TILES {
                    scores[r][tile] = L::fma(query, key[tile], scores[r][tile]);
                }
            }
        }
        for (r, scores) in scores.iter_mut().enumerate() {
            self.weights::<L>(keys, row + r, scores, work);
        }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        scores: &mut [L::F; STEP_TILES],
        work: &Work,
    ) {
        let visible = self.visible(row);
        let lanes: [Range<usize>; STEP_TILES] = std::array::from_fn(|tile| keys[tile].lanes(&visible));
        if lanes.iter().all(Range::is_empty) {
            *work.factors.add(row) = 1.0;
            return;
        }
        let nothing = L::splat(f32::NEG_INFINITY);
        let mut peak = nothing;
        for tile in 0..STEP_TILES {
            if let Some(cap) = self.shape.soft_cap {
                scores[tile] = L::mul(tanh::<L>(L::div(scores[tile], L::splat(cap))), L::splat(cap));
            }
            if let Some(slopes) = &self.shape.alibi_slopes {
                let slope = slopes[self.kv_head * self.group() + row % self.group()];
                let distance = self.distances::<L>(keys[tile].start, row);
                scores[tile] = L::fma(L::splat(-slope), distance, scores[tile]);
            }
            let range = &lanes[tile];
            scores[tile] = L::choose_range(range.start, range.end, scores[tile], nothing);
            peak = L::max(peak, scores[tile]);
        }
        let before = *work.peaks.add(row);
        let peak = before.max(L::greatest(peak));
        let factor = if before == peak { 1.0 } else { L::sum(exp::<L>(L::splat(before - peak))) / 16.0 };
        let totals = work.totals.add(row * LANES);
        let mut total = L::mul(L::load(totals), L::splat(factor));
        for tile in 0..STEP_TILES {
            let weight = exp::<L>(L::sub(scores[tile], L::splat(peak)));
            let range = &lanes[tile];
            let weight = L::choose_range(range.start, range.end, weight, L::splat(0.0));
            total = L::add(total, weight);
            L::store(work.weights.add(row * STEP + tile * LANES), weight);
        }
        L::store(totals, total);
        *work.peaks.add(row) = peak;
        *work.factors.add(row) = factor;
    }

    /// The distance of each of 16 key positions from a row's position.
    #[inline(always)]
    unsafe fn distances<L: Lanes>(&self, start: usize, row: usize) -> L::F {
        const PLACES: [f32; LANES] =
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        let offset = start as f32 - self.position(row) as f32;
        L::abs(L::add(L::load(PLACES.as_ptr()), L::splat(offset)))
    }

    /// Adds the weighted values of a whole step for `ROWS` rows.
    #[inline(always)]
    unsafe fn weigh_all<L: Lanes, const HALF: bool, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) {
        let padded = self.plane.shape().padded_dim();
        let mut at = 0;
        while at + 4 * LANES <= padded && L::WIDE {
            self.weigh_part::<L, HALF, ROWS, 4>(keys, row, at, work);
            at += 4 * LANES;
        }
        while at < padded {
            self.weigh_part::<L, HALF, ROWS, 1>(keys, row, at, work);
            at += LANES;
        }
    }

    #[inline(always)]
    unsafe fn weigh_part<L: Lanes, const HALF: bool, const ROWS: usize, const VECTORS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        at: usize,
        work: &Work,
    ) {
        let padded = self.plane.shape().padded_dim();
        let sums = work.sums.add(row * padded + at);
        let mut totals = [[L::splat(0.0); VECTORS]; ROWS];
        for r in 0..ROWS {
            let factor = L::splat(*work.factors.add(row + r));
            for v in 0..VECTORS {
                totals[r][v] = L::mul(L::load(sums.add(r * padded + v * LANES)), factor);
            }
        }
        for (tile, keys) in keys.iter().enumerate() {
            let weights = work.weights.add(row * STEP + tile * LANES);
            for slot in 0..LANES {
                let from = keys.values + slot * padded + at;
                let values: [L::F; VECTORS] = std::array::from_fn(|v| self.load::<L, HALF>(from + v * LANES));
                for r in 0..ROWS {
                    let weight = L::splat(*weights.add(r * STEP + slot));
                    for v in 0..VECTORS {
                        totals[r][v] = L::fma(weight, values[v], totals[r][v]);
                    }
                }
            }
        }
        for r in 0..ROWS {
            for v in 0..VECTORS {
                L::store(sums.add(r * padded + v * LANES), totals[r][v]);
            }
        }
    }

    /// Adds the weighted values of the lanes that one row sees.
    #[inline(always)]
    unsafe fn weigh_some<L: Lanes, const HALF: bool>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) {
        let visible = self.visible(row);
        let padded = self.plane.shape().padded_dim();
        let factor = L::splat(*work.factors.add(row));
        for at in (0..padded).step_by(LANES) {
            let sums = work.sums.add(row * padded + at);
            let mut total = L::mul(L::load(sums), factor);
            for (tile, keys) in keys.iter().enumerate() {
                for slot in keys.lanes(&visible) {
                    let weight = L::splat(*work.weights.add(row * STEP + tile * LANES + slot));
                    total = L::fma(weight, self.load::<L, HALF>(keys.values + slot * padded + at), total);
                }
            }
            L::store(sums, total);
        }
    }

    /// Sixteen elements of the cache.
    #[inline(always)]
    unsafe fn load<L: Lanes, const HALF: bool>(&self, at: usize) -> L::F {
        let data = self.plane.data();
        if HALF { L::load_f16(data.cast::<u16>().add(at)) } else { L::load(data.cast::<f32>().add(at)) }
    }

    /// Divides by the sums of weights and writes the rows out. A row that sees nothing becomes zero.
    #[inline(always)]
    unsafe fn finish<L: Lanes>(&self, rows: usize, work: &Work) {
        let dim = self.shape.head_dim;
        let padded = self.plane.shape().padded_dim();
        let group = self.group();
        for row in 0..rows {
            let head = self.kv_head * group + row % group;
            let query = self.sequence.rows.start + self.queries.start + row / group;
            let output = self.output.part((query * self.shape.heads + head) * dim, dim);
            let total = L::sum(L::load(work.totals.add(row * LANES)));
            let inverse = L::splat(if total == 0.0 { 0.0 } else { 1.0 / total });
            let sums = std::slice::from_raw_parts(work.sums.add(row * padded), padded);
            for at in (0..dim).step_by(LANES) {
                store_some::<L>(output, at, L::mul(load_some::<L>(sums, at), inverse));
            }
        }
    }
}
