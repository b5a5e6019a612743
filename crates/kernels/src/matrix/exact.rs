//! Float products with the exact values of the weights: a block of columns of a panel is decoded once into the
//! first-level cache and meets all rows there.
#![expect(unsafe_code, reason = "innermost loops over raw panels")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::fast::header;
use super::layout::{GROUP, PANEL, Packing, record_bytes, with_packing, zero_code};
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
        let group_bytes = self.packing.group_bytes();
        for start in self.rows.clone().step_by(ROW_CHUNK) {
            let chunk = ROW_CHUNK.min(self.rows.end - start);
            let sums_at = sums.as_mut_ptr().cast::<f32>();
            for column in (0..self.cols).step_by(BLOCK) {
                let columns = BLOCK.min(self.cols - column);
                let records = self.records.add(column / GROUP * group_bytes);
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
                    while row < chunk {
                        part.block::<L, 1, 1>(row, 0, sums_at);
                        part.block::<L, 1, 1>(row, 1, sums_at);
                        row += 1;
                    }
                }
            }
            let sums = std::slice::from_raw_parts(sums.as_ptr().cast::<[f32; PANEL]>(), chunk);
            self.sink.write(start, sums);
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
                with_packing!(packing, Decode::codes(records, groups, tile, std::marker::PhantomData::<L>))
            }
        }
        tile
    }
}

/// A name for the decoding functions, so that they can be picked by packing.
struct Decode;

impl Decode {
    #[inline(always)]
    unsafe fn codes<const BITS: usize, const WIDTH: usize, const MINIMA: bool, const HALF: bool>(
        records: *const u8,
        groups: usize,
        tile: *mut f32,
        lanes: std::marker::PhantomData<impl Lanes>,
    ) {
        decode_codes::<BITS, WIDTH, MINIMA, HALF, _>(records, groups, tile, lanes);
    }
}

#[inline(always)]
unsafe fn decode_codes<
    const BITS: usize,
    const WIDTH: usize,
    const MINIMA: bool,
    const HALF: bool,
    L: Lanes,
>(
    mut record: *const u8,
    groups: usize,
    mut tile: *mut f32,
    _: std::marker::PhantomData<L>,
) {
    let bytes = record_bytes(BITS, WIDTH, MINIMA, HALF);
    let zero = L::splat(zero_code(BITS, MINIMA) as f32);
    for _ in 0..groups * (GROUP / WIDTH) {
        for v in 0..2 {
            let scale = header::<L, HALF>(record, 0, v);
            let minimum = if MINIMA { header::<L, HALF>(record, 1, v) } else { zero };
            let put = |bytes: L::B, column: usize| {
                let at = tile.add(column * PANEL + v * LANES);
                let value = |code: L::F| {
                    if MINIMA { L::fma(scale, code, minimum) } else { L::mul(scale, L::sub(code, zero)) }
                };
                L::store(at, value(L::byte::<0>(bytes)));
                L::store(at.add(PANEL), value(L::byte::<1>(bytes)));
                L::store(at.add(2 * PANEL), value(L::byte::<2>(bytes)));
                L::store(at.add(3 * PANEL), value(L::byte::<3>(bytes)));
            };
            let start = record.add(bytes - PANEL * WIDTH * if BITS == 8 { 8 } else { 4 } / 8);
            if BITS == 8 {
                for quad in 0..WIDTH / 4 {
                    put(L::load_b(start.add((quad * 2 + v) * 64)), 4 * quad);
                }
            } else {
                let bits = start.sub(4 * PANEL);
                for quad in 0..4 {
                    let place = quad * 2 + v;
                    let codes = L::load_b(start.add(place * 64));
                    let (mut low, mut high) = (L::low_nibbles(codes), L::high_nibbles(codes));
                    if BITS == 5 {
                        low = L::add_fifth_bit(low, bits.add(place * 8));
                        high = L::add_fifth_bit(high, bits.add((place + 8) * 8));
                    }
                    put(low, 4 * quad);
                    put(high, 16 + 4 * quad);
                }
            }
        }
        record = record.add(bytes);
        tile = tile.add(WIDTH * PANEL);
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
            let weight: [L::F; VECTORS] = std::array::from_fn(|v| L::load(weights.add(v * LANES)));
            for r in 0..ROWS {
                let value = L::splat(*input[r].add(column));
                for v in 0..VECTORS {
                    totals[r][v] = L::fma(value, weight[v], totals[r][v]);
                }
            }
            weights = weights.add(PANEL);
        }
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let at = sums.add(r * PANEL + v * LANES);
                let total = if self.fresh { totals[r][v] } else { L::add(L::load(at), totals[r][v]) };
                L::store(at, total);
            }
        }
    }
}
