//! Sums of vectors with weights as products of floats, and the turning of squares that brings keys into the order for them.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]
#![expect(clippy::needless_range_loop, reason = "unrolled loops walk several register arrays at once")]

use crate::lanes::{LANES, Lanes};

/// Sums of `count` vectors with the weights that stand in rows.
pub(super) struct Weigh {
    pub(super) rows: *const f32,
    pub(super) row_stride: usize,
    pub(super) count: usize,
    pub(super) vectors: *const f32,
    pub(super) vector_stride: usize,
}

impl Weigh {
    /// All rows and all `width` (whole vectors) sums of each, times a factor, into rows of that width.
    ///
    /// # Safety
    /// Rows and vectors exist, and `to` has room for the sums.
    #[inline(always)]
    pub(super) unsafe fn rows<L: Lanes>(&self, rows: usize, width: usize, to: *mut f32, factor: L::F) {
        let mut row = 0;
        while row < rows {
            row += match if L::WIDE { (rows - row).min(6) } else { (rows - row).min(3) } {
                6 => self.block::<L, 6>(row, width, to, factor),
                3..=5 => self.block::<L, 3>(row, width, to, factor),
                2 => self.block::<L, 2>(row, width, to, factor),
                _ => self.block::<L, 1>(row, width, to, factor),
            };
        }
    }

    #[inline(always)]
    unsafe fn block<L: Lanes, const ROWS: usize>(
        &self,
        row: usize,
        width: usize,
        to: *mut f32,
        factor: L::F,
    ) -> usize {
        let mut at = 0;
        while at + 4 * LANES <= width && L::WIDE {
            self.part::<L, ROWS, 4>(row, at, width, to, factor);
            at += 4 * LANES;
        }
        while at + 2 * LANES <= width && L::WIDE {
            self.part::<L, ROWS, 2>(row, at, width, to, factor);
            at += 2 * LANES;
        }
        while at < width {
            self.part::<L, ROWS, 1>(row, at, width, to, factor);
            at += LANES;
        }
        ROWS
    }

    #[inline(always)]
    unsafe fn part<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        &self,
        row: usize,
        at: usize,
        width: usize,
        to: *mut f32,
        factor: L::F,
    ) {
        let rows: [*const f32; ROWS] =
            std::array::from_fn(|r| self.rows.wrapping_add((row + r) * self.row_stride));
        let mut totals = [[L::splat(0.0); VECTORS]; ROWS];
        let mut from = self.vectors.add(at);
        for index in 0..self.count {
            let mut vectors = [L::splat(0.0); VECTORS];
            for v in 0..VECTORS {
                vectors[v] = L::load(from.add(v * LANES));
            }
            for r in 0..ROWS {
                let weight = L::splat(*rows[r].add(index));
                for v in 0..VECTORS {
                    totals[r][v] = L::fma(weight, vectors[v], totals[r][v]);
                }
            }
            from = from.wrapping_add(self.vector_stride);
        }
        for r in 0..ROWS {
            for v in 0..VECTORS {
                L::store(to.add((row + r) * width + at + v * LANES), L::mul(totals[r][v], factor));
            }
        }
    }
}

/// Turns a square of sixteen vectors: lane `i` of vector `j` and lane `j` of vector `i` change places.
///
/// # Safety
/// None but the instruction set's.
#[inline(always)]
pub(super) unsafe fn transpose<L: Lanes>(square: &mut [L::F; LANES]) {
    exchange::<L, 1>(square);
    exchange::<L, 2>(square);
    exchange::<L, 4>(square);
    exchange::<L, 8>(square);
}

#[inline(always)]
unsafe fn exchange<L: Lanes, const STRIDE: usize>(square: &mut [L::F; LANES]) {
    let mut sides = [0.0; LANES];
    for (lane, side) in sides.iter_mut().enumerate() {
        *side = if lane & STRIDE == 0 { -1.0 } else { 1.0 };
    }
    let (sides, zero) = (L::load(sides.as_ptr()), L::splat(0.0));
    for index in 0..LANES {
        if index & STRIDE == 0 {
            let (a, b) = (square[index], square[index + STRIDE]);
            square[index] = L::choose_less(sides, zero, a, L::exchanged::<STRIDE>(b));
            square[index + STRIDE] = L::choose_less(sides, zero, L::exchanged::<STRIDE>(a), b);
        }
    }
}
