//! Integer products: activations of one or two 8-bit digits times codes, summed exactly within a group, then scaled and added in f32.
#![expect(unsafe_code, reason = "innermost loops over raw panels")]
#![expect(clippy::needless_range_loop, reason = "unrolled loops walk several register arrays at once")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::layout::{GROUP, HALF, PANEL, Record, SHARED, SUPER, WIDE, zero_code};
use super::sink::WholeRows;
use super::{ROW_CHUNK, Sink};
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::memory::{GroupInfo, prefetch};

/// Groups, at most, whose codes stay in the first-level cache while the rows pass by: with six rows of activations
/// they take up to 33 KiB.
const BLOCK_GROUPS: usize = 24;
/// Bytes that a prefetch brings.
const LINE: usize = 64;

struct Product<
    'a,
    const BITS: usize,
    const WIDTH: usize,
    const MINIMA: bool,
    const SCALES: usize,
    const DIGITS: usize,
> {
    records: *const u8,
    groups: usize,
    codes: *const i8,
    infos: *const GroupInfo,
    rows: Range<usize>,
    sink: &'a Sink<'a>,
}

/// Multiplies rows of the batch with one panel.
///
/// # Safety
/// `records` is a whole panel of this packing, `codes` (M, DIGITS, columns) and `infos` hold all rows, and nobody
/// else writes these rows of the sink.
#[inline]
pub(super) unsafe fn run<
    const BITS: usize,
    const WIDTH: usize,
    const MINIMA: bool,
    const SCALES: usize,
    const DIGITS: usize,
>(
    isa: Isa,
    records: *const u8,
    groups: usize,
    (codes, infos): (&[i8], &[GroupInfo]),
    rows: Range<usize>,
    sink: &Sink<'_>,
) {
    let (codes, infos) = (codes.as_ptr(), infos.as_ptr());
    dispatch(
        isa,
        Product::<BITS, WIDTH, MINIMA, SCALES, DIGITS> { records, groups, codes, infos, rows, sink },
    );
}

impl<const BITS: usize, const WIDTH: usize, const MINIMA: bool, const SCALES: usize, const DIGITS: usize>
    Kernel for Product<'_, BITS, WIDTH, MINIMA, SCALES, DIGITS>
{
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let mut sums = [const { MaybeUninit::<[f32; PANEL]>::uninit() }; ROW_CHUNK];
        // Blocks of about equal length; the shared factors of some encodings stand before every `SUPER` columns.
        let blocks = self.groups.div_ceil(BLOCK_GROUPS).max(1);
        let block =
            self.groups.div_ceil(blocks).next_multiple_of(if SCALES == SHARED { SUPER / GROUP } else { 1 });
        for start in self.rows.clone().step_by(ROW_CHUNK) {
            let chunk = ROW_CHUNK.min(self.rows.end - start);
            for group in (0..self.groups).step_by(block) {
                let groups = block.min(self.groups - group);
                let records = self.records.add(Self::RECORD.span(group));
                let next = records.wrapping_add(Self::RECORD.span(groups));
                // While the rows pass, the next block is fetched, or with the last rows the next panel's first one: a part
                // each time.
                let passes = if L::WIDE { chunk.div_ceil(6) } else { 2 * chunk.div_ceil(3) };
                let wanted = group + groups < self.groups || start + chunk == self.rows.end;
                let lines =
                    if wanted { (Self::RECORD.span(groups) / LINE).div_ceil(passes * groups) } else { 0 };
                let last = group + groups == self.groups;
                let whole = if last { self.sink.whole_rows(start) } else { None };
                let mut part = Part {
                    records,
                    groups,
                    codes: self.codes.add((start * DIGITS * self.groups + group) * GROUP),
                    infos: self.infos.add(start * self.groups + group),
                    stride: self.groups,
                    fresh: group == 0,
                    whole,
                    next,
                    lines,
                };
                let sums = sums.as_mut_ptr().cast::<f32>();
                let mut row = 0;
                if L::WIDE {
                    while row + 6 <= chunk {
                        Self::block::<L, 6, 2>(&mut part, row, 0, sums);
                        row += 6;
                    }
                    if row + 4 <= chunk {
                        Self::block::<L, 4, 2>(&mut part, row, 0, sums);
                        row += 4;
                    }
                    if row + 2 <= chunk {
                        Self::block::<L, 2, 2>(&mut part, row, 0, sums);
                        row += 2;
                    }
                    if row < chunk {
                        Self::block::<L, 1, 2>(&mut part, row, 0, sums);
                    }
                } else {
                    while row + 3 <= chunk {
                        Self::block::<L, 3, 1>(&mut part, row, 0, sums);
                        Self::block::<L, 3, 1>(&mut part, row, 1, sums);
                        row += 3;
                    }
                    while row < chunk {
                        Self::block::<L, 1, 1>(&mut part, row, 0, sums);
                        Self::block::<L, 1, 1>(&mut part, row, 1, sums);
                        row += 1;
                    }
                }
                if last && whole.is_none() {
                    self.sink.store_rows::<L>(start, chunk, sums);
                }
            }
        }
    }
}

/// Some groups of a panel with the activations that meet them.
struct Part {
    records: *const u8,
    groups: usize,
    codes: *const i8,
    infos: *const GroupInfo,
    /// Groups from one activation row to the next.
    stride: usize,
    /// Whether the sums begin at zero.
    fresh: bool,
    /// With the last groups of a panel, where the sums of the rows go if not to `sums`.
    whole: Option<WholeRows>,
    /// What is fetched while this part is computed, and how many cache lines of it with each group.
    next: *const u8,
    lines: usize,
}

impl<const BITS: usize, const WIDTH: usize, const MINIMA: bool, const SCALES: usize, const DIGITS: usize>
    Product<'_, BITS, WIDTH, MINIMA, SCALES, DIGITS>
{
    const RECORD: Record = Record { bits: BITS, group: WIDTH, minima: MINIMA, scales: SCALES };
    const ZERO: i32 = zero_code(BITS, MINIMA);
    /// Codes that use the eighth bit.
    const FULL: bool = BITS == 8 && !MINIMA;

    /// Adds `ROWS` rows times `VECTORS` vectors of lanes, from vector `first` on, to the sums.
    #[inline(always)]
    unsafe fn block<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        part: &mut Part,
        row: usize,
        first: usize,
        sums: *mut f32,
    ) {
        let sums = sums.add(row * PANEL + first * LANES);
        let mut totals = [[L::splat(0.0); VECTORS]; ROWS];
        if !part.fresh {
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    totals[r][v] = L::load(sums.add(r * PANEL + v * LANES));
                }
            }
        }
        let codes: [*const i8; ROWS] =
            std::array::from_fn(|r| part.codes.wrapping_add((row + r) * DIGITS * part.stride * GROUP));
        let infos: [*const GroupInfo; ROWS] =
            std::array::from_fn(|r| part.infos.wrapping_add((row + r) * part.stride));
        let mut record = part.records;
        let mut prefix = record;
        for group in 0..part.groups {
            for _ in 0..part.lines {
                prefetch(part.next);
                part.next = part.next.wrapping_add(LINE);
            }
            if SCALES == SHARED && group % (SUPER / GROUP) == 0 {
                prefix = record;
                record = record.add(Self::RECORD.prefix());
            }
            for half in 0..GROUP / WIDTH {
                let at = group * GROUP + half * WIDTH;
                let mut offsets = [L::splat_i(0); ROWS];
                if Self::ZERO != 0 && !(Self::FULL && L::SUBTRACTS_OFFSET) {
                    for r in 0..ROWS {
                        offsets[r] = offset::<L, BITS, WIDTH>(infos[r].add(group), half);
                    }
                }
                let mut counts = [[L::splat_i(0); VECTORS]; ROWS];
                if DIGITS == 1 {
                    for r in 0..ROWS {
                        counts[r] = [offsets[r]; VECTORS];
                    }
                }
                Self::dots::<L, ROWS, VECTORS>(record, first, &codes, at, &mut counts);
                if DIGITS == 2 {
                    // 32 products of 255 and 127, times 128, stay below 2^28.
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            counts[r][v] = L::times_128(counts[r][v], offsets[r]);
                        }
                    }
                    let low = at + part.stride * GROUP;
                    Self::dots::<L, ROWS, VECTORS>(record, first, &codes, low, &mut counts);
                }
                let front = if SCALES == SHARED { prefix } else { record };
                let index = (group * (GROUP / WIDTH) + half) % (SUPER / WIDTH);
                let mut scales = [L::splat(0.0); VECTORS];
                let mut minima = scales;
                for v in 0..VECTORS {
                    scales[v] = scale::<L, MINIMA, SCALES>(front, index, 0, first + v);
                    if MINIMA {
                        minima[v] = scale::<L, MINIMA, SCALES>(front, index, 1, first + v);
                    }
                }
                for r in 0..ROWS {
                    let info = infos[r].add(group);
                    let step = L::splat((*info).scale);
                    let shift = if MINIMA { shift::<L, WIDTH>(info, half) } else { step };
                    for v in 0..VECTORS {
                        let total = L::fma(L::to_f32(counts[r][v]), L::mul(scales[v], step), totals[r][v]);
                        totals[r][v] = if MINIMA { L::fma(minima[v], shift, total) } else { total };
                    }
                }
                record = record.add(Self::RECORD.bytes());
            }
        }
        match part.whole {
            Some(rows) => rows.store::<L, ROWS, VECTORS>(row, first, &totals),
            None => {
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        L::store(sums.add(r * PANEL + v * LANES), totals[r][v]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dots<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        record: *const u8,
        first: usize,
        codes: &[*const i8; ROWS],
        at: usize,
        counts: &mut [[L::I; VECTORS]; ROWS],
    ) {
        let start = record.add(Self::RECORD.front() + if BITS == 5 { 4 * PANEL } else { 0 });
        let start = start.add(first * LINE);
        let mut with = *codes;
        for r in 0..ROWS {
            with[r] = codes[r].add(at);
        }
        if BITS == 8 {
            Self::quad_of_bytes::<L, ROWS, VECTORS, 0>(start, &with, counts);
            Self::quad_of_bytes::<L, ROWS, VECTORS, 1>(start, &with, counts);
            Self::quad_of_bytes::<L, ROWS, VECTORS, 2>(start, &with, counts);
            Self::quad_of_bytes::<L, ROWS, VECTORS, 3>(start, &with, counts);
            if WIDTH == GROUP {
                Self::quad_of_bytes::<L, ROWS, VECTORS, 4>(start, &with, counts);
                Self::quad_of_bytes::<L, ROWS, VECTORS, 5>(start, &with, counts);
                Self::quad_of_bytes::<L, ROWS, VECTORS, 6>(start, &with, counts);
                Self::quad_of_bytes::<L, ROWS, VECTORS, 7>(start, &with, counts);
            }
            return;
        }
        Self::quad_of_nibbles::<L, ROWS, VECTORS, 0>(start, first, &with, counts);
        Self::quad_of_nibbles::<L, ROWS, VECTORS, 1>(start, first, &with, counts);
        Self::quad_of_nibbles::<L, ROWS, VECTORS, 2>(start, first, &with, counts);
        Self::quad_of_nibbles::<L, ROWS, VECTORS, 3>(start, first, &with, counts);
    }

    /// Products of columns `4 * QUAD..4 * QUAD + 4` of a record of bytes.
    #[inline(always)]
    unsafe fn quad_of_bytes<L: Lanes, const ROWS: usize, const VECTORS: usize, const QUAD: usize>(
        start: *const u8,
        with: &[*const i8; ROWS],
        counts: &mut [[L::I; VECTORS]; ROWS],
    ) {
        let mut bytes = [L::load_b(start.add(QUAD * PANEL * 4)); VECTORS];
        for v in 1..VECTORS {
            bytes[v] = L::load_b(start.add(QUAD * PANEL * 4 + v * LINE));
        }
        for r in 0..ROWS {
            if Self::FULL {
                L::dots_offset::<QUAD, VECTORS>(&mut counts[r], &bytes, with[r]);
            } else {
                L::dots_small::<QUAD, VECTORS>(&mut counts[r], &bytes, with[r]);
            }
        }
    }

    /// Products of columns `4 * QUAD..4 * QUAD + 4` of a record of nibbles, and of those sixteen columns behind.
    #[inline(always)]
    unsafe fn quad_of_nibbles<L: Lanes, const ROWS: usize, const VECTORS: usize, const QUAD: usize>(
        start: *const u8,
        first: usize,
        with: &[*const i8; ROWS],
        counts: &mut [[L::I; VECTORS]; ROWS],
    ) {
        let nothing = L::load_b(start);
        let (mut low, mut high) = ([nothing; VECTORS], [nothing; VECTORS]);
        for v in 0..VECTORS {
            let bytes = L::load_b(start.add(QUAD * PANEL * 4 + v * LINE));
            (low[v], high[v]) = (L::low_nibbles(bytes), L::high_nibbles(bytes));
            if BITS == 5 {
                let bits = start.sub(4 * PANEL + first * LINE);
                let place = QUAD * 2 + first + v;
                low[v] = L::add_fifth_bit(low[v], bits.add(place * 8));
                high[v] = L::add_fifth_bit(high[v], bits.add((place + 8) * 8));
            }
        }
        for r in 0..ROWS {
            L::dots_small::<QUAD, VECTORS>(&mut counts[r], &low, with[r]);
        }
        for r in 0..ROWS {
            L::dots_small::<QUAD, VECTORS>(&mut counts[r], &high, with[r].add(WIDTH / 2));
        }
    }
}

/// Minus the sum of the activations' codes of a group, or of a half of it, times the code that means zero.
#[inline(always)]
unsafe fn offset<L: Lanes, const BITS: usize, const WIDTH: usize>(
    info: *const GroupInfo,
    half: usize,
) -> L::I {
    if WIDTH != GROUP {
        return L::splat_i(-zero_code(BITS, false) * half_sum(info, half));
    }
    let eights = L::splat_from(&raw const (*info).eights);
    match BITS {
        4 => eights,
        5 => L::doubled::<1>(eights),
        _ => L::doubled::<4>(eights),
    }
}

/// What a unit of a weight's minimum adds in a group, or in a half of it.
#[inline(always)]
unsafe fn shift<L: Lanes, const WIDTH: usize>(info: *const GroupInfo, half: usize) -> L::F {
    if WIDTH == GROUP {
        L::splat((*info).shift)
    } else {
        L::splat((*info).scale * half_sum(info, half) as f32)
    }
}

#[inline(always)]
unsafe fn half_sum(info: *const GroupInfo, half: usize) -> i32 {
    if half == 0 { (*info).half } else { -((*info).eights / 8) - (*info).half }
}

/// Scales (slot 0) or minima (slot 1) of one vector of lanes. `front` is the record, or the shared prefix, in which
/// it is record `index`.
#[inline(always)]
pub(super) unsafe fn scale<L: Lanes, const MINIMA: bool, const SCALES: usize>(
    front: *const u8,
    index: usize,
    slot: usize,
    vector: usize,
) -> L::F {
    let at = slot * PANEL + vector * LANES;
    match SCALES {
        WIDE => L::load(front.cast::<f32>().add(at)),
        HALF => L::load_f16(front.cast::<u16>().add(at)),
        _ => {
            let slots = if MINIMA { 2 } else { 1 };
            let factors = front.add((2 + index) * slots * PANEL + at).cast::<i8>();
            L::mul(L::load_f16(front.cast::<u16>().add(at)), L::load_i8(factors))
        }
    }
}
