//! Rounding activations to 8 or 15 bits, per row and group of 32.
//!
//! Fifteen bits are stored as two digits of base 128, each a signed byte: first all high digits of a row, then all
//! low ones. So both widths meet the weights in the same byte products.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use std::ptr;

use super::layout::GROUP;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::math::step_and_factor;
use crate::memory::{GroupInfo, Shared};
use crate::norm::load_some;
use crate::rows::split;
use crate::threads::Turn;

struct Quantize<'a> {
    input: &'a [f32],
    cols: usize,
    digits: usize,
    codes: &'a mut [i8],
    infos: &'a mut [GroupInfo],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let groups = self.cols.div_ceil(GROUP);
        let rows = self.input.chunks_exact(self.cols);
        let outputs = self
            .codes
            .chunks_exact_mut(self.digits * groups * GROUP)
            .zip(self.infos.chunks_exact_mut(groups));
        for (input, (codes, infos)) in rows.zip(outputs) {
            let (codes, low_digits) = codes.split_at_mut(groups * GROUP);
            for (group, info) in infos.iter_mut().enumerate() {
                let at = group * GROUP;
                let first = load_some::<L>(input, at);
                let second =
                    if at + LANES < self.cols { load_some::<L>(input, at + LANES) } else { L::splat(0.0) };
                let low_digits =
                    if self.digits == 2 { low_digits.as_mut_ptr().add(at) } else { ptr::null_mut() };
                *info = round_group::<L>([first, second], codes.as_mut_ptr().add(at), low_digits);
            }
        }
    }
}

/// Rounds the 32 values of a group and stores their codes; without `low_digits` to eight bits, else to fifteen.
///
/// # Safety
/// Both pointers, if not null, have room for 32 bytes.
#[inline(always)]
pub(super) unsafe fn round_group<L: Lanes>(
    values: [L::F; 2],
    codes: *mut i8,
    low_digits: *mut i8,
) -> GroupInfo {
    let [first, second] = values;
    let largest = L::greatest(L::max(L::abs(first), L::abs(second)));
    let broken = L::any_nan(first) || L::any_nan(second);
    let (scale, factor) =
        step_and_factor(largest, broken, if low_digits.is_null() { 127.0 } else { 127.0 * 128.0 });
    let (first, second) = (L::mul(first, L::splat(factor)), L::mul(second, L::splat(factor)));
    let sums = if low_digits.is_null() {
        [L::store_i8(codes, first), L::store_i8(codes.add(LANES), second)]
    } else {
        [
            store_digits::<L>(codes, low_digits, first),
            store_digits::<L>(codes.add(LANES), low_digits.add(LANES), second),
        ]
    };
    GroupInfo::new(scale, sums)
}

/// Rounds to integers of at most 127 * 128, stores their two digits and returns their sum.
#[inline(always)]
unsafe fn store_digits<L: Lanes>(high: *mut i8, low: *mut i8, value: L::F) -> i32 {
    let rounded = L::round(value);
    let digit = L::round(L::mul(rounded, L::splat(1.0 / 128.0)));
    128 * L::store_i8(high, digit) + L::store_i8(low, L::fma(digit, L::splat(-128.0), rounded))
}

/// Rounds the rows of `input` (M, cols) to `codes` (M, digits, padded cols) and `infos` (M, groups).
pub(super) fn quantize_rows(
    turn: &Turn<'_>,
    input: &[f32],
    cols: usize,
    digits: usize,
    codes: &mut [i8],
    infos: &mut [GroupInfo],
) {
    let isa = turn.isa();
    let groups = cols.div_ceil(GROUP);
    let (codes, infos) = (Shared::new(codes.as_mut_ptr()), Shared::new(infos.as_mut_ptr()));
    split(turn, input.len() / cols, cols, &|rows| {
        // SAFETY: tasks take disjoint rows of both buffers.
        unsafe {
            let codes =
                codes.part(rows.start * digits * groups * GROUP, rows.len() * digits * groups * GROUP);
            let infos = infos.part(rows.start * groups, rows.len() * groups);
            let input = &input[rows.start * cols..rows.end * cols];
            dispatch(isa, Quantize { input, cols, digits, codes, infos });
        }
    });
}
