//! Rounding activations to 8 bits, per row and group of 32.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use super::layout::GROUP;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::memory::{GroupInfo, Shared};
use crate::norm::load_some;
use crate::rows::split;
use crate::threads::Turn;

struct Quantize<'a> {
    input: &'a [f32],
    cols: usize,
    codes: &'a mut [i8],
    infos: &'a mut [GroupInfo],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let groups = self.cols.div_ceil(GROUP);
        let rows = self.input.chunks_exact(self.cols);
        let outputs = self.codes.chunks_exact_mut(groups * GROUP).zip(self.infos.chunks_exact_mut(groups));
        for (input, (codes, infos)) in rows.zip(outputs) {
            for (group, info) in infos.iter_mut().enumerate() {
                let at = group * GROUP;
                let first = load_some::<L>(input, at);
                let second =
                    if at + LANES < self.cols { load_some::<L>(input, at + LANES) } else { L::splat(0.0) };
                let largest = L::greatest(L::max(L::abs(first), L::abs(second)));
                let broken = L::any_nan(first) || L::any_nan(second);
                let inverse = L::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
                let codes = codes[at..at + GROUP].as_mut_ptr();
                let low = L::store_i8(codes, L::mul(first, inverse));
                let high = L::store_i8(codes.add(LANES), L::mul(second, inverse));
                // What is not a number must not vanish in the rounding.
                let scale = if broken { f32::NAN } else { largest / 127.0 };
                *info = GroupInfo { scale, sums: [low, high], sum: low + high };
            }
        }
    }
}

/// Rounds the rows of `input` (M, cols) to `codes` (M, padded cols) and `infos` (M, groups).
pub(super) fn quantize_rows(
    turn: &Turn<'_>,
    input: &[f32],
    cols: usize,
    codes: &mut [i8],
    infos: &mut [GroupInfo],
) {
    let isa = turn.isa();
    let groups = cols.div_ceil(GROUP);
    let (codes, infos) = (Shared::new(codes.as_mut_ptr()), Shared::new(infos.as_mut_ptr()));
    split(turn, input.len() / cols, cols, &|rows| {
        // SAFETY: tasks take disjoint rows of both buffers.
        unsafe {
            let codes = codes.part(rows.start * groups * GROUP, rows.len() * groups * GROUP);
            let infos = infos.part(rows.start * groups, rows.len() * groups);
            dispatch(isa, Quantize { input: &input[rows.start * cols..rows.end * cols], cols, codes, infos });
        }
    });
}
