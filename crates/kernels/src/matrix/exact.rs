//! Float products with the exact values of the weights: a block of columns of a panel is decoded once into the
//! first-level cache and meets all rows there.
#![expect(unsafe_code, reason = "innermost loops over raw panels")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::integer::scale;
use super::layout::{GROUP, PANEL, Packing, Record, SHARED, SUPER, with_packing, zero_code};
use super::{ROW_CHUNK, Sink};
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};

/// Groups per block of columns. Each block is summed on its own, which also keeps rounding errors small.
const BLOCK_GROUPS: usize = 8;
const BLOCK: usize = BLOCK_GROUPS * GROUP;

struct Product<'a> {
    packing: Packing,
    records: *const u8,
    cols: usize,
    input: *const f32,
    rows: Range<usize>,
    sink: &'a Sink<'a>,
}

/// Multiplies rows of the batch with one panel.
///
/// # Safety
/// `records` is a whole panel of this packing with `cols` columns, `input` holds all rows, and nobody else writes
/// these rows of the sink.
pub(super) unsafe fn run(
    isa: Isa,
    packing: Packing,
    records: *const u8,
    cols: usize,
    input: &[f32],
    rows: Range<usize>,
    sink: &Sink<'_>,
) {
    dispatch(isa, Product { packing, records, cols, input: input.as_ptr(), rows, sink });
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let mut sums = [const { MaybeUninit::<[f32; PANEL]>::uninit() }; ROW_CHUNK];
        let mut tile = [const { MaybeUninit::<[f32; PANEL]>::uninit() }; BLOCK];
        for start in self.rows.clone().step_by(ROW_CHUNK) {
            let chunk = ROW_CHUNK.min(self.rows.end - start);
            let sums_at = sums.as_mut_ptr().cast::<f32>();
            for column in (0..self.cols).step_by(BLOCK) {
                let columns = BLOCK.min(self.cols - column);
                let records = self.records.add(self.packing.bytes(column / GROUP));
                if chunk == 1 && self.packing.record().is_some() {
                    let input = self.input.add(start * self.cols + column);
                    let mut into = IntoTotals::<L> { input, totals: [L::splat(0.0); 2] };
                    with_packing!(self.packing, Walk::run(records, columns / GROUP, &mut into));
                    add_to::<L, 2>(sums_at, &into.totals, column == 0);
                    continue;
                }
                let weights = self.decode::<L>(records, columns, tile.as_mut_ptr().cast::<f32>());
                let input = self.input.add(start * self.cols + column);
                let part = Part { weights, columns, input, stride: self.cols, fresh: column == 0 };
                let mut row = 0;
                if L::WIDE {
                    while row + 12 <= chunk {
                        part.block::<L, 12, 2>(row, 0, sums_at);
                        row += 12;
                    }
                    while row + 4 <= chunk {
                        part.block::<L, 4, 2>(row, 0, sums_at);
                        row += 4;
                    }
                    while row < chunk {
                        part.block::<L, 1, 2>(row, 0, sums_at);
                        row += 1;
                    }
                } else {
                    while row + 6 <= chunk {
                        part.block::<L, 6, 1>(row, 0, sums_at);
                        part.block::<L, 6, 1>(row, 1, sums_at);
                        row += 6;
                    }
                    while row + 3 <= chunk {
                        part.block::<L, 3, 1>(row, 0, sums_at);
                        part.block::<L, 3, 1>(row, 1, sums_at);
                        row += 3;
                    }
                    while row < chunk {
                        part.block::<L, 1, 1>(row, 0, sums_at);
                        part.block::<L, 1, 1>(row, 1, sums_at);
                        row += 1;
                    }
                }
            }
            self.sink.store_rows::<L>(start, chunk, sums_at);
        }
    }
}

impl Product<'_> {
    /// The values of up to `BLOCK` columns, 32 lanes each: decoded into `tile`, or in place.
    #[inline(always)]
    unsafe fn decode<L: Lanes>(&self, records: *const u8, columns: usize, tile: *mut f32) -> *const f32 {
        let groups = columns.div_ceil(GROUP);
        match self.packing {
            Packing::F32 => return records.cast(),
            Packing::F16 => {
                for at in (0..columns * PANEL).step_by(LANES) {
                    L::store(tile.add(at), L::load_f16(records.cast::<u16>().add(at)));
                }
            }
            Packing::BF16 => {
                for at in (0..columns * PANEL).step_by(LANES) {
                    L::store(tile.add(at), L::load_bf16(records.cast::<u16>().add(at)));
                }
            }
            packing => {
                let mut into = IntoTile::<L> { tile, lanes: PhantomData };
                with_packing!(packing, Walk::run(records, groups, &mut into));
            }
        }
        tile
    }
}

/// What to do with the values of a column.
trait Visit {
    /// The instruction set.
    type L: Lanes;
    /// Takes the two vectors of the next column.
    unsafe fn column(&mut self, values: [<Self::L as Lanes>::F; 2]);
}

/// Stores the columns one after the other.
struct IntoTile<L> {
    tile: *mut f32,
    lanes: PhantomData<L>,
}

impl<L: Lanes> Visit for IntoTile<L> {
    type L = L;

    #[inline(always)]
    unsafe fn column(&mut self, values: [L::F; 2]) {
        L::store(self.tile, values[0]);
        L::store(self.tile.add(LANES), values[1]);
        self.tile = self.tile.add(PANEL);
    }
}

/// Multiplies the columns with one row, in the order of `Part::block`.
struct IntoTotals<L: Lanes> {
    input: *const f32,
    totals: [L::F; 2],
}

impl<L: Lanes> Visit for IntoTotals<L> {
    type L = L;

    #[inline(always)]
    unsafe fn column(&mut self, values: [L::F; 2]) {
        let input = L::splat(*self.input);
        self.totals = [L::fma(input, values[0], self.totals[0]), L::fma(input, values[1], self.totals[1])];
        self.input = self.input.add(1);
    }
}

/// A name under which the walk can be picked by packing.
struct Walk;

impl Walk {
    /// Decodes groups of columns in order.
    #[inline(always)]
    unsafe fn run<const BITS: usize, const WIDTH: usize, const MINIMA: bool, const SCALES: usize>(
        records: *const u8,
        groups: usize,
        visit: &mut impl Visit,
    ) {
        walk::<BITS, WIDTH, MINIMA, SCALES, _, _>(records, groups, visit);
    }
}

#[inline(always)]
unsafe fn walk<
    const BITS: usize,
    const WIDTH: usize,
    const MINIMA: bool,
    const SCALES: usize,
    L: Lanes,
    V: Visit<L = L>,
>(
    mut record: *const u8,
    groups: usize,
    visit: &mut V,
) {
    let layout = Record { bits: BITS, group: WIDTH, minima: MINIMA, scales: SCALES };
    let zero = L::splat(zero_code(BITS, MINIMA) as f32);
    let mut prefix = record;
    for index in 0..groups * (GROUP / WIDTH) {
        let index = index % (SUPER / WIDTH);
        if SCALES == SHARED && index == 0 {
            prefix = record;
            record = record.add(layout.prefix());
        }
        let front = if SCALES == SHARED { prefix } else { record };
        let mut scales = [zero; 2];
        let mut minima = [zero; 2];
        for v in 0..2 {
            scales[v] = scale::<L, MINIMA, SCALES>(front, index, 0, v);
            if MINIMA {
                minima[v] = scale::<L, MINIMA, SCALES>(front, index, 1, v);
            }
        }
        let start = record.add(layout.front());
        for quad in 0..WIDTH / 4 {
            let bytes = [quad_bytes::<L, BITS>(start, quad, 0), quad_bytes::<L, BITS>(start, quad, 1)];
            visit.column(values::<L, MINIMA, 0>(bytes, scales, minima, zero));
            visit.column(values::<L, MINIMA, 1>(bytes, scales, minima, zero));
            visit.column(values::<L, MINIMA, 2>(bytes, scales, minima, zero));
            visit.column(values::<L, MINIMA, 3>(bytes, scales, minima, zero));
        }
        record = record.add(layout.bytes());
    }
}

/// The codes of four columns of one vector of lanes; `start` is where fifth bits or codes begin.
#[inline(always)]
unsafe fn quad_bytes<L: Lanes, const BITS: usize>(start: *const u8, quad: usize, vector: usize) -> L::B {
    if BITS == 8 {
        return L::load_b(start.add((2 * quad + vector) * 64));
    }
    let nibbles = start.add(if BITS == 5 { 4 * PANEL } else { 0 });
    let both = L::load_b(nibbles.add((2 * (quad % 4) + vector) * 64));
    let code = if quad < 4 { L::low_nibbles(both) } else { L::high_nibbles(both) };
    if BITS == 5 { L::add_fifth_bit(code, start.add((2 * quad + vector) * 8)) } else { code }
}

/// The values of column `J` of four.
#[inline(always)]
unsafe fn values<L: Lanes, const MINIMA: bool, const J: usize>(
    bytes: [L::B; 2],
    scales: [L::F; 2],
    minima: [L::F; 2],
    zero: L::F,
) -> [L::F; 2] {
    let codes = [L::byte::<J>(bytes[0]), L::byte::<J>(bytes[1])];
    if MINIMA {
        [L::fma(scales[0], codes[0], minima[0]), L::fma(scales[1], codes[1], minima[1])]
    } else {
        [L::mul(scales[0], L::sub(codes[0], zero)), L::mul(scales[1], L::sub(codes[1], zero))]
    }
}

/// Adds the sums of one block of columns to those of the blocks before it.
#[inline(always)]
unsafe fn add_to<L: Lanes, const VECTORS: usize>(sums: *mut f32, totals: &[L::F; VECTORS], fresh: bool) {
    for (v, total) in totals.iter().enumerate() {
        let at = sums.add(v * LANES);
        L::store(at, if fresh { *total } else { L::add(L::load(at), *total) });
    }
}

/// Some columns of a panel with the activations that meet them.
struct Part {
    weights: *const f32,
    columns: usize,
    input: *const f32,
    stride: usize,
    fresh: bool,
}

impl Part {
    /// Sums `ROWS` rows times `VECTORS` vectors of lanes, from vector `first` on, and adds them to the sums.
    #[inline(always)]
    unsafe fn block<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        &self,
        row: usize,
        first: usize,
        sums: *mut f32,
    ) {
        let sums = sums.add(row * PANEL + first * LANES);
        let input: [*const f32; ROWS] =
            std::array::from_fn(|r| self.input.wrapping_add((row + r) * self.stride));
        let mut totals = [[L::splat(0.0); VECTORS]; ROWS];
        let mut weights = self.weights.add(first * LANES);
        for column in 0..self.columns {
            let mut weight = [L::splat(0.0); VECTORS];
            for (v, weight) in weight.iter_mut().enumerate() {
                *weight = L::load(weights.add(v * LANES));
            }
            for r in 0..ROWS {
                let value = L::splat(*input[r].add(column));
                for v in 0..VECTORS {
                    totals[r][v] = L::fma(value, weight[v], totals[r][v]);
                }
            }
            weights = weights.add(PANEL);
        }
        for (r, totals) in totals.iter().enumerate() {
            add_to::<L, VECTORS>(sums.add(r * PANEL), totals, self.fresh);
        }
    }
}
