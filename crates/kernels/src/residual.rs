//! The end of a block of a post-norm network: the sum with the block's input and its normalisation, rounded at once
//! to what the next product reads.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::matrix::{InputWriter, ProductInput, load_group};
use crate::norm::{load_some, shift_and_factor, store_some, zeros_past};
use crate::rows::split_mut;
use crate::threads::Turn;

/// Weight, bias and epsilon of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Factor per value.
    pub weight: &'a [f32],
    /// Addend per value.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

struct Rows<'a> {
    stream: &'a mut [f32],
    block: &'a [f32],
    norm: LayerNorm<'a>,
    writer: InputWriter,
    first: usize,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let LayerNorm { weight, bias, eps } = self.norm;
        let width = weight.len();
        for (row, values) in self.stream.chunks_exact_mut(width).enumerate() {
            let block = self.block.get(row * width..(row + 1) * width);
            if let Some(block) = block {
                for at in (0..width).step_by(LANES) {
                    let sum = L::add(load_some::<L>(values, at), load_some::<L>(block, at));
                    store_some::<L>(values, at, sum);
                }
            }
            let (mean, factor) = shift_and_factor::<L>(values, true, eps);
            let (mean, factor) = (L::splat(mean), L::splat(factor));
            for group in 0..width.div_ceil(2 * LANES) {
                let at = group * 2 * LANES;
                let (value, weight, bias) =
                    (load_group::<L>(values, at), load_group::<L>(weight, at), load_group::<L>(bias, at));
                let mut scaled = [L::splat(0.0); 2];
                for half in 0..2 {
                    let from = at + half * LANES;
                    if from < width {
                        let centered = L::mul(L::sub(value[half], mean), factor);
                        let result = L::fma(centered, weight[half], bias[half]);
                        scaled[half] = zeros_past::<L>(result, width - from);
                        store_some::<L>(values, from, scaled[half]);
                    }
                }
                self.writer.store_group::<L>(self.first + row, group, scaled);
            }
        }
    }
}

/// `stream = norm(stream + block)` for rows as long as the norm's weight, and the same rows rounded into `input`. An
/// empty `block` adds nothing.
///
/// # Panics
/// When the lengths do not fit.
pub fn add_norm(
    turn: &Turn<'_>,
    stream: &mut [f32],
    block: &[f32],
    norm: LayerNorm<'_>,
    input: &mut ProductInput,
) {
    let width = norm.weight.len();
    assert!(width > 0 && stream.len().is_multiple_of(width), "rows are not as long as the weight");
    assert!(norm.bias.len() == width, "bias and weight differ in length");
    assert!(block.is_empty() || block.len() == stream.len(), "block and stream differ in length");
    let rows = stream.len() / width;
    input.resize(rows, width);
    let writer = input.writer();
    let isa = turn.isa();
    split_mut(turn, stream, width, &|range, stream| {
        let block = if block.is_empty() { block } else { &block[range.start * width..range.end * width] };
        // SAFETY: tasks write disjoint rows of the input, which has as many as the stream, of the same width.
        unsafe { dispatch(isa, Rows { stream, block, norm, writer, first: range.start }) };
    });
}
