//! Integer products of many rows: a block of a panel is unpacked once, to bytes and f32 scales in the first-level
//! cache, and meets all rows there. The numbers and their order are those of [`super::integer`], so that the two
//! give the same bits.
#![expect(unsafe_code, reason = "innermost loops over raw panels")]
#![expect(clippy::needless_range_loop, reason = "unrolled loops walk several register arrays at once")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::integer::{offset, scale, shift};
use super::layout::{GROUP, PANEL, Record, SHARED, SUPER, zero_code};
use super::{ROW_CHUNK, Sink};
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::memory::{GroupInfo, prefetch};

/// Rows from which unpacking pays.
pub(super) const FEWEST_ROWS: usize = 12;
/// Groups, at most, that are unpacked at a time: with six rows of activations they fit into 48 KiB.
const BLOCK_GROUPS: usize = 18;
/// Bytes that a prefetch brings.
const LINE: usize = 64;

/// Some groups of a panel: codes as bytes in quads of columns, scales and minima as floats.
#[repr(C, align(64))]
struct Unpacked {
    codes: [u8; BLOCK_GROUPS * GROUP * PANEL],
    /// Two per group, for encodings with 16 columns to a scale.
    scales: [f32; 2 * BLOCK_GROUPS * PANEL],
    minima: [f32; 2 * BLOCK_GROUPS * PANEL],
}

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
/// As for the functions of [`super::integer`].
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
        let mut unpacked = MaybeUninit::<Unpacked>::uninit();
        let most = if SCALES == SHARED { SUPER / GROUP } else { 1 };
        let blocks = self.groups.div_ceil(BLOCK_GROUPS / most * most).max(1);
        let block = self.groups.div_ceil(blocks).next_multiple_of(most);
        for start in self.rows.clone().step_by(ROW_CHUNK) {
            let chunk = ROW_CHUNK.min(self.rows.end - start);
            for group in (0..self.groups).step_by(block) {
                let groups = block.min(self.groups - group);
                let records = self.records.add(Self::RECORD.span(group));
                Self::unpack::<L>(records, groups, unpacked.as_mut_ptr());
                let last = group + groups == self.groups;
                let passes = if L::WIDE { chunk.div_ceil(6) } else { 2 * chunk.div_ceil(3) };
                // While the rows pass, the next block is fetched, or with the last rows the next panel's first one.
                let wanted = !last || start + chunk == self.rows.end;
                let mut part = Part {
                    unpacked: unpacked.as_ptr(),
                    groups,
                    codes: self.codes.add((start * DIGITS * self.groups + group) * GROUP),
                    infos: self.infos.add(start * self.groups + group),
                    stride: self.groups,
                    fresh: group == 0,
                    finish: last.then_some((self.sink, start)),
                    next: records.wrapping_add(Self::RECORD.span(groups)),
                    lines: if wanted {
                        (Self::RECORD.span(groups) / LINE).div_ceil(passes * groups)
                    } else {
                        0
                    },
                };
                let sums = sums.as_mut_ptr().cast::<f32>();
                let mut row = 0;
                if L::WIDE {
                    while row + 6 <= chunk {
                        Self::block::<L, 6, 2>(&mut part, row, 0, sums);
                        row += 6;
                    }
                    while row + 2 <= chunk {
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
            }
        }
    }
}

/// Unpacked groups with the activations that meet them.
struct Part<'a> {
    unpacked: *const Unpacked,
    groups: usize,
    codes: *const i8,
    infos: *const GroupInfo,
    /// Groups from one activation row to the next.
    stride: usize,
    /// Whether the sums begin at zero.
    fresh: bool,
    /// Where whole sums go and the batch row of the first of them, with the last groups of the panel.
    finish: Option<(&'a Sink<'a>, usize)>,
    /// What is fetched while this part is computed, and how many cache lines of it with each group.
    next: *const u8,
    lines: usize,
}

impl<const BITS: usize, const WIDTH: usize, const MINIMA: bool, const SCALES: usize, const DIGITS: usize>
    Product<'_, BITS, WIDTH, MINIMA, SCALES, DIGITS>
{
    const RECORD: Record = Record { bits: BITS, group: WIDTH, minima: MINIMA, scales: SCALES };
    /// Codes that use the eighth bit.
    const FULL: bool = BITS == 8 && !MINIMA;

    #[inline(always)]
    unsafe fn unpack<L: Lanes>(records: *const u8, groups: usize, unpacked: *mut Unpacked) {
        let mut to = (&raw mut (*unpacked).codes).cast::<u8>();
        let mut scales = (&raw mut (*unpacked).scales).cast::<f32>();
        let mut minima = (&raw mut (*unpacked).minima).cast::<f32>();
        let mut record = records;
        let mut prefix = record;
        for part in 0..groups * (GROUP / WIDTH) {
            let index = part % (SUPER / WIDTH);
            if SCALES == SHARED && index == 0 {
                prefix = record;
                record = record.add(Self::RECORD.prefix());
            }
            let front = if SCALES == SHARED { prefix } else { record };
            for v in 0..PANEL / LANES {
                L::store(scales.add(v * LANES), scale::<L, MINIMA, SCALES>(front, index, 0, v));
                if MINIMA {
                    L::store(minima.add(v * LANES), scale::<L, MINIMA, SCALES>(front, index, 1, v));
                }
            }
            scales = scales.add(PANEL);
            minima = minima.add(PANEL);
            let start = record.add(Self::RECORD.front() + if BITS == 5 { 4 * PANEL } else { 0 });
            if BITS == 8 {
                for place in 0..PANEL * WIDTH / LINE {
                    L::store_b(to.add(place * LINE), L::load_b(start.add(place * LINE)));
                }
            } else {
                let bits = start.sub(4 * PANEL);
                for place in 0..8 {
                    let bytes = L::load_b(start.add(place * LINE));
                    let (mut low, mut high) = (L::low_nibbles(bytes), L::high_nibbles(bytes));
                    if BITS == 5 {
                        low = L::add_fifth_bit(low, bits.add(place * 8));
                        high = L::add_fifth_bit(high, bits.add((place + 8) * 8));
                    }
                    L::store_b(to.add(place * LINE), low);
                    L::store_b(to.add((place + 8) * LINE), high);
                }
            }
            to = to.add(PANEL * WIDTH);
            record = record.add(Self::RECORD.bytes());
        }
    }

    /// Adds `ROWS` rows times `VECTORS` vectors of lanes, from vector `first` on, to the sums.
    #[inline(always)]
    unsafe fn block<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        part: &mut Part<'_>,
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
        let mut bytes = (&raw const (*part.unpacked).codes).cast::<u8>().add(first * LINE);
        let mut scales = (&raw const (*part.unpacked).scales).cast::<f32>().add(first * LANES);
        let mut minima = (&raw const (*part.unpacked).minima).cast::<f32>().add(first * LANES);
        for group in 0..part.groups {
            for _ in 0..part.lines {
                prefetch(part.next);
                part.next = part.next.wrapping_add(LINE);
            }
            for half in 0..GROUP / WIDTH {
                let at = group * GROUP + half * WIDTH;
                let mut counts = [[L::splat_i(0); VECTORS]; ROWS];
                let mut offsets = [L::splat_i(0); ROWS];
                if zero_code(BITS, MINIMA) != 0 && !(Self::FULL && L::SUBTRACTS_OFFSET) {
                    for r in 0..ROWS {
                        offsets[r] = offset::<L, BITS, WIDTH>(infos[r].add(group), half);
                        if DIGITS == 1 {
                            counts[r] = [offsets[r]; VECTORS];
                        }
                    }
                }
                Self::dots::<L, ROWS, VECTORS>(bytes, &codes, at, &mut counts);
                if DIGITS == 2 {
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            counts[r][v] = L::times_128(counts[r][v], offsets[r]);
                        }
                    }
                    let low = at + part.stride * GROUP;
                    Self::dots::<L, ROWS, VECTORS>(bytes, &codes, low, &mut counts);
                }
                let mut scale = [L::splat(0.0); VECTORS];
                let mut minimum = scale;
                for v in 0..VECTORS {
                    scale[v] = L::load(scales.add(v * LANES));
                    if MINIMA {
                        minimum[v] = L::load(minima.add(v * LANES));
                    }
                }
                for r in 0..ROWS {
                    let info = infos[r].add(group);
                    let step = L::splat((*info).scale);
                    let shift = if MINIMA { shift::<L, WIDTH>(info, half) } else { step };
                    for v in 0..VECTORS {
                        let total = L::fma(L::to_f32(counts[r][v]), L::mul(scale[v], step), totals[r][v]);
                        totals[r][v] = if MINIMA { L::fma(minimum[v], shift, total) } else { total };
                    }
                }
                bytes = bytes.add(PANEL * WIDTH);
                scales = scales.add(PANEL);
                minima = minima.add(PANEL);
            }
        }
        for r in 0..ROWS {
            for v in 0..VECTORS {
                match part.finish {
                    Some((sink, start)) => sink.store::<L>(start + row + r, first + v, totals[r][v]),
                    None => L::store(sums.add(r * PANEL + v * LANES), totals[r][v]),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dots<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        bytes: *const u8,
        codes: &[*const i8; ROWS],
        at: usize,
        counts: &mut [[L::I; VECTORS]; ROWS],
    ) {
        for quad in 0..WIDTH / 4 {
            let mut weights = [L::load_b(bytes.add(quad * 2 * LINE)); VECTORS];
            for v in 1..VECTORS {
                weights[v] = L::load_b(bytes.add((quad * 2 + v) * LINE));
            }
            for r in 0..ROWS {
                let with = codes[r].add(at + 4 * quad);
                for v in 0..VECTORS {
                    counts[r][v] = if Self::FULL {
                        L::dot_offset(counts[r][v], weights[v], with)
                    } else {
                        L::dot_small(counts[r][v], weights[v], with)
                    };
                }
            }
        }
    }
}
