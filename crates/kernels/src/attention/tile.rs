//! The attention of a few queries over all keys they see, with a running maximum and sum.
#![expect(unsafe_code, reason = "innermost loops over raw tiles")]
#![expect(clippy::needless_range_loop, reason = "unrolled loops walk several register arrays at once")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::ops::Range;

use super::cache::{QUAD, prepared_head, scale_and_factor};
use super::rotation;
use super::{AttentionSequence, AttentionShape, CachePlane, CacheType, FREED_BLOCK, Mask};
use crate::lanes::{Kernel, LANES, Lanes};
use crate::math::{exp, step_and_factor, tanh};
use crate::matrix::{InputWriter, load_group};
use crate::memory::{Shared, prefetch};
use crate::norm::{load_some, store_some};

/// Tiles of keys between two updates of the running maximum.
const STEP_TILES: usize = 4;
const STEP: usize = STEP_TILES * LANES;

/// The queries of a tile: consecutive rows of one sequence times the query heads of one key head.
pub(super) struct Tile<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) plane: &'a CachePlane,
    pub(super) sequence: &'a AttentionSequence<'a>,
    /// The key head at work, and the first one that is not of the task.
    pub(super) kv_head: usize,
    pub(super) kv_heads: usize,
    pub(super) queries: Range<usize>,
    pub(super) query_rows: &'a [f32],
    pub(super) query_stride: usize,
    pub(super) output: Outcome,
    pub(super) work: &'a mut [f32],
}

/// Where the rows of attention go.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// Rows of floats.
    Floats(Shared<f32>),
    /// The input of the next product; heads consist of whole groups.
    Input(InputWriter),
}

/// Floats of work memory for a tile of so many rows (queries times heads).
pub(super) fn work_len(rows: usize, head_dim: usize) -> usize {
    rows * (query_width(head_dim) + STEP + head_dim.div_ceil(LANES) * LANES + LANES + 6)
}

/// Floats that hold a query, or its codes in whole vectors.
fn query_width(head_dim: usize) -> usize {
    head_dim.max(LANES / QUAD)
}

/// The work memory of a tile, one line per row.
struct Work {
    /// Scaled queries, or with a cache of bytes their codes.
    queries: *mut f32,
    /// With a cache of bytes: the value of one step of the codes, and their sum.
    query_scales: *mut f32,
    query_sums: *mut i32,
    /// Weights of a step; with a cache of bytes their codes.
    weights: *mut f32,
    /// With a cache of bytes: the value of one step of the codes of weights, and their sum.
    weight_scales: *mut f32,
    weight_sums: *mut i32,
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
    /// Where the plane holds their keys and their values, in bytes.
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
        while self.kv_head < self.kv_heads {
            match self.plane.shape().kind {
                CacheType::F32 => self.attend::<L, { CacheType::F32.bytes() }>(),
                CacheType::F16 => self.attend::<L, { CacheType::F16.bytes() }>(),
                CacheType::I8 => self.attend::<L, { CacheType::I8.bytes() }>(),
            }
            self.kv_head += 1;
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
    unsafe fn attend<L: Lanes, const BYTES: usize>(&mut self) {
        let rows = self.queries.len() * self.group();
        let work = self.prepare::<L, BYTES>(rows);
        let cache = *self.plane.shape();
        // Rows see more and later keys from first to last, so the union is that of the two ends.
        let (first, last) = (self.visible(0), self.visible(rows - 1));
        let (low, high) = (first.start.min(last.start), first.end.max(last.end));
        let tiles = cache.tiles();
        let tile_of =
            |position: usize| position / cache.block_tokens * tiles + position % cache.block_tokens / LANES;
        if low < high {
            let begin = tile_of(low) / STEP_TILES * STEP_TILES;
            let mut keys = self.locate_step(begin, self.kv_head);
            for step in (begin..=tile_of(high - 1)).step_by(STEP_TILES) {
                let next = if step + STEP_TILES <= tile_of(high - 1) {
                    self.locate_step(step + STEP_TILES, self.kv_head)
                } else if self.kv_head + 1 < self.kv_heads {
                    self.locate_step(begin, self.kv_head + 1)
                } else {
                    [Keys::default(); STEP_TILES]
                };
                self.step::<L, BYTES>(&keys, &next, rows, &work);
                keys = next;
            }
        }
        self.finish::<L>(rows, &work);
    }

    /// Scales or rounds the queries and clears the sums.
    #[inline(always)]
    unsafe fn prepare<L: Lanes, const BYTES: usize>(&mut self, rows: usize) -> Work {
        let dim = self.shape.head_dim;
        let padded = self.plane.shape().padded_dim();
        debug_assert!(self.work.len() >= work_len(rows, dim));
        let queries = self.work.as_mut_ptr();
        let weights = queries.add(rows * query_width(dim));
        let sums = weights.add(rows * STEP);
        let totals = sums.add(rows * padded);
        let peaks = totals.add(rows * LANES);
        let factors = peaks.add(rows);
        let query_scales = factors.add(rows);
        let query_sums = query_scales.add(rows).cast::<i32>();
        let weight_scales = query_scales.add(2 * rows);
        let weight_sums = weight_scales.add(rows).cast::<i32>();
        let group = self.group();
        let mut rotated = [0.0; rotation::LONGEST];
        for row in 0..rows {
            let head = self.kv_head * group + row % group;
            let at = (self.sequence.rows.start + self.queries.start + row / group) * self.query_stride
                + head * dim;
            let query = &self.query_rows[at..at + dim];
            let to = queries.add(row * query_width(dim));
            if BYTES == 1 {
                let query = prepared_head::<L>(query, self.plane.query_factors(self.kv_head), &mut rotated);
                let (scale, factor) = scale_and_factor::<L>(query);
                let mut sum = 0;
                for at in (0..dim).step_by(LANES) {
                    let scaled = L::mul(load_some::<L>(query, at), L::splat(factor));
                    sum += L::store_i8(to.cast::<i8>().add(at), scaled);
                }
                // The transforms of query and key together multiply every product.
                *query_scales.add(row) = scale * self.shape.scale / rotation::block(dim) as f32;
                *query_sums.add(row) = sum;
            } else {
                let to = std::slice::from_raw_parts_mut(to, dim);
                for at in (0..dim).step_by(LANES) {
                    let scaled = L::mul(load_some::<L>(query, at), L::splat(self.shape.scale));
                    store_some::<L>(to, at, scaled);
                }
            }
            *peaks.add(row) = f32::NEG_INFINITY;
        }
        std::ptr::write_bytes(sums, 0, rows * padded);
        std::ptr::write_bytes(totals, 0, rows * LANES);
        Work {
            queries,
            query_scales,
            query_sums,
            weights,
            weight_scales,
            weight_sums,
            sums,
            totals,
            peaks,
            factors,
        }
    }

    fn locate_step(&self, first: usize, kv_head: usize) -> [Keys; STEP_TILES] {
        let mut keys = [Keys::default(); STEP_TILES];
        for (place, keys) in keys.iter_mut().enumerate() {
            *keys = self.locate(first + place, kv_head);
        }
        keys
    }

    /// Where tile number `tile` of the sequence lies; empty when it does not exist.
    fn locate(&self, tile: usize, kv_head: usize) -> Keys {
        let cache = self.plane.shape();
        let (index, tile) = (tile / cache.tiles(), tile % cache.tiles());
        match self.sequence.blocks.get(index) {
            Some(&block) if block != FREED_BLOCK => Keys {
                start: index * cache.block_tokens + tile * LANES,
                len: LANES.min(cache.block_tokens - tile * LANES),
                keys: self.plane.keys_at(block, kv_head, tile),
                values: self.plane.values_at(block, kv_head, tile),
            },
            _ => Keys::default(),
        }
    }

    /// Takes up to 64 keys into account. Their values are fetched while the scores are computed, and the keys of the
    /// `next` step while the values are weighed.
    #[inline(always)]
    unsafe fn step<L: Lanes, const BYTES: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        next: &[Keys; STEP_TILES],
        rows: usize,
        work: &Work,
    ) {
        let values = [keys[0].values, keys[1].values, keys[2].values, keys[3].values];
        self.fetch::<BYTES>(values, self.plane.shape().padded_dim());
        let mut row = 0;
        while row < rows {
            row += match if L::WIDE { (rows - row).min(4) } else { 1 } {
                4 => self.scores::<L, BYTES, 4>(keys, row, work),
                3 => self.scores::<L, BYTES, 3>(keys, row, work),
                2 => self.scores::<L, BYTES, 2>(keys, row, work),
                _ => self.scores::<L, BYTES, 1>(keys, row, work),
            };
        }
        let next = [next[0].keys, next[1].keys, next[2].keys, next[3].keys];
        self.fetch::<BYTES>(next, self.plane.shape().key_dim());
        if BYTES == 1 {
            return self.weigh_codes::<L>(keys, rows, work);
        }
        // Neighbouring rows that see the same keys of the step share a pass over the values.
        let mut row = 0;
        while row < rows {
            let lanes = self.lanes(keys, row);
            let last = rows.min(row + 8);
            let alike = 1 + (row + 1..last).take_while(|row| self.lanes(keys, *row) == lanes).count();
            row += match if L::WIDE { alike } else { alike.min(3) } {
                6 | 8 => self.weigh::<L, BYTES, 6>(keys, &lanes, row, work),
                4 | 7 => self.weigh::<L, BYTES, 4>(keys, &lanes, row, work),
                3 | 5 => self.weigh::<L, BYTES, 3>(keys, &lanes, row, work),
                2 => self.weigh::<L, BYTES, 2>(keys, &lanes, row, work),
                _ => self.weigh::<L, BYTES, 1>(keys, &lanes, row, work),
            };
        }
    }

    /// Starts to bring tiles of `width` vectors closer.
    #[inline(always)]
    unsafe fn fetch<const BYTES: usize>(&self, tiles: [usize; STEP_TILES], width: usize) {
        let header = self.plane.shape().kind.header();
        for tile in tiles {
            let start = self.plane.data().wrapping_add(tile).wrapping_sub(header);
            for line in (0..header + width * LANES * BYTES).step_by(64) {
                prefetch(start.wrapping_add(line));
            }
        }
    }

    /// The lanes of each tile that a row sees.
    #[inline(always)]
    fn lanes(&self, keys: &[Keys; STEP_TILES], row: usize) -> [Range<usize>; STEP_TILES] {
        let visible = self.visible(row);
        [keys[0].lanes(&visible), keys[1].lanes(&visible), keys[2].lanes(&visible), keys[3].lanes(&visible)]
    }

    /// Scores of `ROWS` rows with 64 keys, turned into weights, with the new peaks, factors and totals. Returns `ROWS`.
    #[inline(always)]
    unsafe fn scores<L: Lanes, const BYTES: usize, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) -> usize {
        let mut scores = if BYTES == 1 {
            self.integer_products::<L, ROWS>(keys, row, work)
        } else {
            self.products::<L, BYTES, ROWS>(keys, row, work)
        };
        for r in 0..ROWS {
            self.weights::<L, BYTES>(keys, row + r, &mut scores[r], work);
        }
        ROWS
    }

    /// Products of `ROWS` scaled queries with the floats of 64 keys.
    #[inline(always)]
    unsafe fn products<L: Lanes, const BYTES: usize, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) -> [[L::F; STEP_TILES]; ROWS] {
        let dim = self.shape.head_dim;
        let width = query_width(dim);
        let mut scores = [[L::splat(0.0); STEP_TILES]; ROWS];
        let queries = work.queries.add(row * width);
        for index in 0..dim {
            // No closures here: a closure is compiled without the instruction set of the kernel around it.
            let mut key = [L::splat(0.0); STEP_TILES];
            for tile in 0..STEP_TILES {
                key[tile] = self.load::<L, BYTES>(keys[tile].keys, index * LANES);
            }
            for r in 0..ROWS {
                let query = L::splat(*queries.add(r * width + index));
                for tile in 0..STEP_TILES {
                    scores[r][tile] = L::fma(query, key[tile], scores[r][tile]);
                }
            }
        }
        scores
    }

    /// Products of the codes of `ROWS` queries with those of 64 keys, scaled.
    #[inline(always)]
    unsafe fn integer_products<L: Lanes, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) -> [[L::F; STEP_TILES]; ROWS] {
        let width = query_width(self.shape.head_dim);
        let queries = work.queries.add(row * width);
        let mut counts = [[L::splat_i(0); STEP_TILES]; ROWS];
        if !L::SUBTRACTS_OFFSET {
            for r in 0..ROWS {
                counts[r] = [L::splat_i(-128 * *work.query_sums.add(row + r)); STEP_TILES];
            }
        }
        for quad in 0..self.plane.shape().key_dim() / QUAD {
            for tile in 0..STEP_TILES {
                let bytes = L::load_b(self.plane.data().add(keys[tile].keys + quad * LANES * QUAD));
                for r in 0..ROWS {
                    let codes = queries.add(r * width).cast::<i8>().add(quad * QUAD);
                    counts[r][tile] = L::dot_offset(counts[r][tile], bytes, codes);
                }
            }
        }
        let mut scores = [[L::splat(0.0); STEP_TILES]; ROWS];
        for tile in 0..STEP_TILES {
            if keys[tile].len > 0 {
                let scales = self.scales::<L>(keys[tile].keys);
                for r in 0..ROWS {
                    let scale = L::mul(scales, L::splat(*work.query_scales.add(row + r)));
                    scores[r][tile] = L::mul(L::to_f32(counts[r][tile]), scale);
                }
            }
        }
        scores
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes, const BYTES: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        scores: &mut [L::F; STEP_TILES],
        work: &Work,
    ) {
        let lanes = self.lanes(keys, row);
        if lanes.iter().all(Range::is_empty) {
            *work.factors.add(row) = 1.0;
            if BYTES == 1 {
                self.round::<L>(&[L::splat(0.0); STEP_TILES], row, work);
            }
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
            scores[tile] = weight;
            // The values of a position share a scale, which so costs one multiplication for all of them.
            if BYTES == 1 && !range.is_empty() {
                let scaled = L::mul(weight, self.scales::<L>(keys[tile].values));
                // What a row does not see may hold anything.
                scores[tile] = L::choose_range(range.start, range.end, scaled, L::splat(0.0));
            }
        }
        L::store(totals, total);
        *work.peaks.add(row) = peak;
        *work.factors.add(row) = factor;
        if BYTES == 1 {
            return self.round::<L>(scores, row, work);
        }
        for tile in 0..STEP_TILES {
            L::store(work.weights.add(row * STEP + tile * LANES), scores[tile]);
        }
    }

    /// Rounds the weights of a row to codes of 0..=127.
    #[inline(always)]
    unsafe fn round<L: Lanes>(&self, weights: &[L::F; STEP_TILES], row: usize, work: &Work) {
        let (mut largest, mut all) = (weights[0], weights[0]);
        for tile in 1..STEP_TILES {
            largest = L::max(largest, weights[tile]);
            all = L::add(all, weights[tile]);
        }
        let (scale, factor) = step_and_factor(L::greatest(largest), L::any_nan(all), 127.0);
        let to = work.weights.add(row * STEP).cast::<i8>();
        let mut sum = L::splat(0.0);
        for tile in 0..STEP_TILES {
            let codes = L::round(L::mul(weights[tile], L::splat(factor)));
            L::store_i8(to.add(tile * LANES), codes);
            sum = L::add(sum, codes);
        }
        *work.weight_scales.add(row) = scale;
        *work.weight_sums.add(row) = L::sum(sum) as i32;
    }

    /// The distance of each of 16 key positions from a row's position.
    #[inline(always)]
    unsafe fn distances<L: Lanes>(&self, start: usize, row: usize) -> L::F {
        const PLACES: [f32; LANES] =
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        let offset = start as f32 - self.position(row) as f32;
        L::abs(L::add(L::load(PLACES.as_ptr()), L::splat(offset)))
    }

    /// Adds the weighted values of the lanes that `ROWS` rows see. Returns `ROWS`.
    #[inline(always)]
    unsafe fn weigh<L: Lanes, const BYTES: usize, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        lanes: &[Range<usize>; STEP_TILES],
        row: usize,
        work: &Work,
    ) -> usize {
        let padded = self.plane.shape().padded_dim();
        let mut at = 0;
        while at + 4 * LANES <= padded && L::WIDE {
            self.weigh_part::<L, BYTES, ROWS, 4>(keys, lanes, row, at, work);
            at += 4 * LANES;
        }
        while at < padded {
            self.weigh_part::<L, BYTES, ROWS, 1>(keys, lanes, row, at, work);
            at += LANES;
        }
        ROWS
    }

    #[inline(always)]
    unsafe fn weigh_part<L: Lanes, const BYTES: usize, const ROWS: usize, const VECTORS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        lanes: &[Range<usize>; STEP_TILES],
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
        for tile in 0..STEP_TILES {
            let weights = work.weights.add(row * STEP + tile * LANES);
            for slot in lanes[tile].start..lanes[tile].end {
                let from = slot * padded + at;
                let mut values = [L::splat(0.0); VECTORS];
                for v in 0..VECTORS {
                    values[v] = self.load::<L, BYTES>(keys[tile].values, from + v * LANES);
                }
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

    /// Adds the values of a step, weighted by codes. A code of zero adds nothing, so that rows may share a pass over
    /// keys that not all of them see.
    #[inline(always)]
    unsafe fn weigh_codes<L: Lanes>(&self, keys: &[Keys; STEP_TILES], rows: usize, work: &Work) {
        let mut row = 0;
        while row < rows {
            row += match if L::WIDE { (rows - row).min(6) } else { (rows - row).min(3) } {
                6 => self.weigh_rows::<L, 6>(keys, row, work),
                3..=5 => self.weigh_rows::<L, 3>(keys, row, work),
                2 => self.weigh_rows::<L, 2>(keys, row, work),
                _ => self.weigh_rows::<L, 1>(keys, row, work),
            };
        }
    }

    #[inline(always)]
    unsafe fn weigh_rows<L: Lanes, const ROWS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        row: usize,
        work: &Work,
    ) -> usize {
        let padded = self.plane.shape().padded_dim();
        let (first, last) = (self.visible(row), self.visible(row + ROWS - 1));
        let union = first.start.min(last.start)..first.end.max(last.end);
        let mut seen = [false; STEP_TILES];
        for tile in 0..STEP_TILES {
            seen[tile] = !keys[tile].lanes(&union).is_empty();
        }
        let mut at = 0;
        while at + 4 * LANES <= padded && L::WIDE {
            self.weigh_codes_part::<L, ROWS, 4>(keys, &seen, row, at, work);
            at += 4 * LANES;
        }
        while at < padded {
            self.weigh_codes_part::<L, ROWS, 1>(keys, &seen, row, at, work);
            at += LANES;
        }
        ROWS
    }

    #[inline(always)]
    unsafe fn weigh_codes_part<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        &self,
        keys: &[Keys; STEP_TILES],
        seen: &[bool; STEP_TILES],
        row: usize,
        at: usize,
        work: &Work,
    ) {
        let padded = self.plane.shape().padded_dim();
        let mut counts = [[L::splat_i(0); VECTORS]; ROWS];
        if !L::SUBTRACTS_OFFSET {
            for r in 0..ROWS {
                counts[r] = [L::splat_i(-128 * *work.weight_sums.add(row + r)); VECTORS];
            }
        }
        let codes = work.weights.add(row * STEP);
        for tile in 0..STEP_TILES {
            if !seen[tile] {
                continue;
            }
            let values = self.plane.data().add(keys[tile].values);
            for quad in 0..LANES / QUAD {
                let mut bytes = [L::load_b(values.add((quad * padded + at) * QUAD)); VECTORS];
                for v in 1..VECTORS {
                    bytes[v] = L::load_b(values.add((quad * padded + at + v * LANES) * QUAD));
                }
                for r in 0..ROWS {
                    let with = codes.add(r * STEP).cast::<i8>().add(tile * LANES + quad * QUAD);
                    for v in 0..VECTORS {
                        counts[r][v] = L::dot_offset(counts[r][v], bytes[v], with);
                    }
                }
            }
        }
        let sums = work.sums.add(row * padded + at);
        for r in 0..ROWS {
            let factor = L::splat(*work.factors.add(row + r));
            let scale = L::splat(*work.weight_scales.add(row + r));
            for v in 0..VECTORS {
                let sum = sums.add(r * padded + v * LANES);
                L::store(sum, L::fma(L::to_f32(counts[r][v]), scale, L::mul(L::load(sum), factor)));
            }
        }
    }

    /// Sixteen elements of a tile, without their scales.
    #[inline(always)]
    unsafe fn load<L: Lanes, const BYTES: usize>(&self, tile: usize, at: usize) -> L::F {
        let from = self.plane.data().add(tile + at * BYTES);
        match BYTES {
            1 => L::load_i8(from.cast()),
            2 => L::load_f16(from.cast()),
            _ => L::load(from.cast()),
        }
    }

    /// The scales of the sixteen positions of a tile of bytes.
    #[inline(always)]
    unsafe fn scales<L: Lanes>(&self, tile: usize) -> L::F {
        L::load(self.plane.data().add(tile - CacheType::I8.header()).cast())
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
            let total = L::sum(L::load(work.totals.add(row * LANES)));
            let inverse = L::splat(if total == 0.0 { 0.0 } else { 1.0 / total });
            let sums = std::slice::from_raw_parts(work.sums.add(row * padded), padded);
            match self.output {
                Outcome::Floats(output) => {
                    let output = output.part((query * self.shape.heads + head) * dim, dim);
                    for at in (0..dim).step_by(LANES) {
                        store_some::<L>(output, at, L::mul(load_some::<L>(sums, at), inverse));
                    }
                }
                Outcome::Input(writer) => {
                    for at in (0..dim).step_by(2 * LANES) {
                        let [first, second] = load_group::<L>(sums, at);
                        let values = [L::mul(first, inverse), L::mul(second, inverse)];
                        writer.store_group::<L>(query, (head * dim + at) / (2 * LANES), values);
                    }
                }
            }
        }
    }
}
