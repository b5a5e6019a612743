//! The rotation of queries and keys before they are rounded to bytes.
//!
//! A few channels of a head dwarf the others, and a step that spans those leaves little of the rest. A Hadamard
//! transform of both sides changes no product but spreads every channel over all (Ashkboos et al., QuaRot, 2024).
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use crate::lanes::{LANES, Lanes};

/// The longest head that is rotated.
pub(super) const LONGEST: usize = 512;

/// Channels that are mixed with each other: the greatest power of two that divides the head. One when heads are not
/// rotated, which are those that do not consist of whole vectors.
pub(super) const fn block(head_dim: usize) -> usize {
    let block = 1 << head_dim.trailing_zeros();
    if block < LANES || head_dim > LONGEST { 1 } else { block }
}

/// Transforms a head in place, without the factor of one over the root of [`block`].
///
/// # Safety
/// `values` has `head_dim` elements.
#[inline(always)]
pub(super) unsafe fn rotate<L: Lanes>(values: *mut f32, head_dim: usize) {
    let block = block(head_dim);
    if block == 1 {
        return;
    }
    for start in (0..head_dim).step_by(LANES) {
        let at = values.add(start);
        let vector = within::<L, 1>(L::load(at));
        let vector = within::<L, 2>(vector);
        let vector = within::<L, 4>(vector);
        L::store(at, within::<L, 8>(vector));
    }
    let mut stride = LANES;
    while stride < block {
        for first in (0..head_dim).step_by(2 * stride) {
            for index in (first..first + stride).step_by(LANES) {
                let (low, high) = (values.add(index), values.add(index + stride));
                let (a, b) = (L::load(low), L::load(high));
                L::store(low, L::add(a, b));
                L::store(high, L::sub(a, b));
            }
        }
        stride *= 2;
    }
}

/// Sums and differences of lanes that are `STRIDE` apart.
#[inline(always)]
unsafe fn within<L: Lanes, const STRIDE: usize>(vector: L::F) -> L::F {
    const SIGNS: [[f32; LANES]; 4] = [signs(1), signs(2), signs(4), signs(8)];
    let signs = L::load(SIGNS[STRIDE.trailing_zeros() as usize].as_ptr());
    L::fma(vector, signs, L::exchanged::<STRIDE>(vector))
}

/// Minus one in the lanes that are the second of their pair.
const fn signs(stride: usize) -> [f32; LANES] {
    let mut signs = [1.0; LANES];
    let mut lane = 0;
    while lane < LANES {
        if lane & stride != 0 {
            signs[lane] = -1.0;
        }
        lane += 1;
    }
    signs
}
