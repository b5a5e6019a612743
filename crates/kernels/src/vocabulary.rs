//! What sampling does with every logit of a row: the greatest one, and weights that are proportional to
//! probabilities.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::math::exp;
use crate::norm::{load_some, store_some, zeros_past};

/// Weights that are summed together by [`weigh`].
pub const WEIGHT_BLOCK: usize = 256;

/// A weight that is not zero is at least this.
const LEAST: f32 = 1e-38;

struct Greatest<'a> {
    logits: &'a [f32],
}

impl Kernel for Greatest<'_> {
    type Output = Option<f32>;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Option<f32> {
        let (chunks, rest) = self.logits.as_chunks::<LANES>();
        let mut greatest = L::splat(f32::NEG_INFINITY);
        // Zero times a finite number is zero; anything else is not a number and stays so.
        let mut broken = L::splat(0.0);
        for chunk in chunks {
            let values = L::load(chunk.as_ptr());
            greatest = L::max(values, greatest);
            broken = L::fma(values, L::splat(0.0), broken);
        }
        let greatest = rest.iter().copied().fold(L::greatest(greatest), f32::max);
        let broken = L::any_nan(broken) || rest.iter().any(|logit| !logit.is_finite());
        (!broken && greatest.is_finite()).then_some(greatest)
    }
}

/// The greatest logit; `None` when one is not finite or there are none.
#[must_use]
pub fn greatest(isa: Isa, logits: &[f32]) -> Option<f32> {
    // SAFETY: the kernel works on slices only.
    unsafe { dispatch(isa.min(Isa::detect()), Greatest { logits }) }
}

struct Weigh<'a> {
    logits: &'a [f32],
    greatest: f32,
    scale: f32,
    least: f32,
    weights: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let blocks = self.logits.chunks(WEIGHT_BLOCK).zip(self.weights.chunks_mut(WEIGHT_BLOCK));
        let zero = L::splat(0.0);
        for ((logits, weights), block_sum) in blocks.zip(self.sums) {
            let mut sum = zero;
            for at in (0..logits.len()).step_by(LANES) {
                let logit = load_some::<L>(logits, at);
                let power = L::mul(L::sub(logit, L::splat(self.greatest)), L::splat(self.scale));
                let weight = L::max(exp::<L>(power), L::splat(LEAST));
                let weight = L::choose_less(weight, L::splat(self.least), zero, weight);
                let weight = L::choose_less(logit, L::splat(f32::MIN), zero, weight);
                let weight = zeros_past::<L>(weight, logits.len() - at);
                sum = L::add(sum, weight);
                store_some::<L>(weights, at, weight);
            }
            *block_sum = L::sum(sum);
        }
    }
}

/// Fills `weights` with exp((logit - greatest) * scale) and `sums` with the sum of each [`WEIGHT_BLOCK`] of them.
/// What is less than `least`, and what belongs to a logit of negative infinity, becomes zero; nothing else does.
pub fn weigh(
    isa: Isa,
    logits: &[f32],
    (greatest, scale, least): (f32, f32, f32),
    weights: &mut Vec<f32>,
    sums: &mut Vec<f32>,
) {
    weights.resize(logits.len(), 0.0);
    sums.resize(logits.len().div_ceil(WEIGHT_BLOCK), 0.0);
    // SAFETY: the kernel works on slices only.
    unsafe { dispatch(isa.min(Isa::detect()), Weigh { logits, greatest, scale, least, weights, sums }) };
}
