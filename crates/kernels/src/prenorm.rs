//! The way into a block of a pre-norm network: the residual stream takes up what the block before says, and its
//! normalised rows are rounded at once to what the next product reads.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::matrix::{InputWriter, ProductInput, load_group};
use crate::norm::{load_some, shift_and_factor, store_some, zeros_past};
use crate::rows::split_mut;
use crate::threads::Turn;

/// Weights of the normalisation of a row.
#[derive(Debug, Clone, Copy)]
pub struct RowNorm<'a> {
    /// Factor per value.
    pub weight: &'a [f32],
    /// Addend per value.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// Whether the mean is subtracted first (layer normalisation), or not (root-mean-square normalisation).
    pub center: bool,
}

struct Rows<'a> {
    stream: &'a mut [f32],
    block: &'a [f32],
    scale: f32,
    norm: RowNorm<'a>,
    writer: InputWriter,
    first: usize,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let RowNorm { weight, bias, eps, center } = self.norm;
        let width = weight.len();
        for (row, values) in self.stream.chunks_exact_mut(width).enumerate() {
            if let Some(block) = self.block.get(row * width..(row + 1) * width) {
                for at in (0..width).step_by(LANES) {
                    let sum =
                        L::fma(load_some::<L>(block, at), L::splat(self.scale), load_some::<L>(values, at));
                    store_some::<L>(values, at, sum);
                }
            }
            let (shift, factor) = shift_and_factor::<L>(values, center, eps);
            let factor = L::splat(factor);
            for group in 0..width.div_ceil(2 * LANES) {
                let at = group * 2 * LANES;
                let (value, weight) = (load_group::<L>(values, at), load_group::<L>(weight, at));
                let mut scaled = [L::splat(0.0); 2];
                for half in 0..2 {
                    let from = at + half * LANES;
                    if from < width {
                        let centered = L::mul(L::sub(value[half], L::splat(shift)), factor);
                        let result = match bias {
                            Some(bias) => L::fma(centered, weight[half], load_some::<L>(bias, from)),
                            None => L::mul(centered, weight[half]),
                        };
                        scaled[half] = zeros_past::<L>(result, width - from);
                    }
                }
                self.writer.store_group::<L>(self.first + row, group, scaled);
            }
        }
    }
}

/// `stream += scale * block`, and `norm(stream)` rounded into `input`, for rows as long as the norm's weight. An empty
/// `block` adds nothing.
///
/// # Panics
/// When the lengths do not fit.
pub fn add_then_norm(
    turn: &Turn<'_>,
    stream: &mut [f32],
    (block, scale): (&[f32], f32),
    norm: RowNorm<'_>,
    input: &mut ProductInput,
) {
    let width = norm.weight.len();
    assert!(width > 0 && stream.len().is_multiple_of(width), "rows are not as long as the weight");
    assert!(norm.bias.is_none_or(|bias| bias.len() == width), "bias and weight differ in length");
    assert!(block.is_empty() || block.len() == stream.len(), "block and stream differ in length");
    let rows = stream.len() / width;
    input.resize(rows, width);
    let writer = input.writer();
    let isa = turn.isa();
    split_mut(turn, stream, width, &|range, stream| {
        let block = if block.is_empty() { block } else { &block[range.start * width..range.end * width] };
        // SAFETY: tasks write disjoint rows of the input, which has as many as the stream, of the same width.
        unsafe { dispatch(isa, Rows { stream, block, scale, norm, writer, first: range.start }) };
    });
}
