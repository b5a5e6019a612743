//! Normalisation of rows.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::rows::split_mut;
use crate::threads::Turn;

/// Sixteen values of a slice, zeros past its end.
#[inline(always)]
pub(crate) unsafe fn load_some<L: Lanes>(from: &[f32], at: usize) -> L::F {
    if at + LANES <= from.len() {
        L::load(from.as_ptr().add(at))
    } else {
        let mut padded = [0.0; LANES];
        padded[..from.len() - at].copy_from_slice(&from[at..]);
        L::load(padded.as_ptr())
    }
}

/// Stores as many of sixteen values as the slice has room for.
#[inline(always)]
pub(crate) unsafe fn store_some<L: Lanes>(to: &mut [f32], at: usize, value: L::F) {
    if at + LANES <= to.len() {
        L::store(to.as_mut_ptr().add(at), value);
    } else {
        let mut padded = [0.0; LANES];
        L::store(padded.as_mut_ptr(), value);
        let room = to.len() - at;
        to[at..].copy_from_slice(&padded[..room]);
    }
}

/// A vector with zeros behind its first `count` lanes.
#[inline(always)]
pub(crate) unsafe fn zeros_past<L: Lanes>(value: L::F, count: usize) -> L::F {
    if count >= LANES { value } else { L::choose_range(0, count, value, L::splat(0.0)) }
}

/// Vectors that are summed up beside each other, so that additions do not wait for each other.
const SUMS: usize = 4;

/// The sum of a row's values, or of the squares of these less `shift`.
#[inline(always)]
unsafe fn sum_of<L: Lanes, const SQUARES: bool>(row: &[f32], shift: f32) -> f32 {
    let (mut sums, shift) = ([L::splat(0.0); SUMS], L::splat(shift));
    let whole = row.len() / (SUMS * LANES) * (SUMS * LANES);
    for at in (0..whole).step_by(SUMS * LANES) {
        for (index, sum) in sums.iter_mut().enumerate() {
            let value = L::load(row.as_ptr().add(at + index * LANES));
            *sum = with_value::<L, SQUARES>(*sum, value, shift, LANES);
        }
    }
    for (at, sum) in (whole..row.len()).step_by(LANES).zip(&mut sums) {
        *sum = with_value::<L, SQUARES>(*sum, load_some::<L>(row, at), shift, row.len() - at);
    }
    L::sum(L::add(L::add(sums[0], sums[1]), L::add(sums[2], sums[3])))
}

/// A sum with one more vector, of which the first `count` lanes are there and the others zeros.
#[inline(always)]
unsafe fn with_value<L: Lanes, const SQUARES: bool>(
    sum: L::F,
    value: L::F,
    shift: L::F,
    count: usize,
) -> L::F {
    if SQUARES {
        let value = zeros_past::<L>(L::sub(value, shift), count);
        L::fma(value, value, sum)
    } else {
        L::add(sum, value)
    }
}

/// What is subtracted from a row's values (their mean when they are to be centered), and what the rest is then scaled by.
#[inline(always)]
pub(crate) unsafe fn shift_and_factor<L: Lanes>(row: &[f32], center: bool, eps: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let shift = if center { sum_of::<L, false>(row, 0.0) / width } else { 0.0 };
    (shift, 1.0 / (sum_of::<L, true>(row, shift) / width + eps).sqrt())
}

/// Normalises `output` rows in place of copies of `input` rows; without `input`, in place.
struct Norm<'a> {
    input: Option<&'a [f32]>,
    output: &'a mut [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    center: bool,
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let width = self.weight.len();
        for (row, output) in self.output.chunks_exact_mut(width).enumerate() {
            if let Some(input) = self.input {
                output.copy_from_slice(&input[row * width..(row + 1) * width]);
            }
            let (shift, factor) = shift_and_factor::<L>(output, self.center, self.eps);
            for at in (0..width).step_by(LANES) {
                let value = L::sub(load_some::<L>(output, at), L::splat(shift));
                let scaled = L::mul(value, L::splat(factor));
                let weight = load_some::<L>(self.weight, at);
                let value = match self.bias {
                    Some(bias) => L::fma(scaled, weight, load_some::<L>(bias, at)),
                    None => L::mul(scaled, weight),
                };
                store_some::<L>(output, at, value);
            }
        }
    }
}

/// Root-mean-square normalisation of each row of `input` (T, D) with `weight` (D).
///
/// # Panics
/// When the lengths do not fit.
pub fn rms_norm(turn: &Turn<'_>, input: &[f32], weight: &[f32], eps: f32, output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    normalise(turn, Some(input), weight, None, eps, false, output);
}

/// Root-mean-square normalisation in place of each head: `values` has rows of `row_stride` floats, and the heads
/// of a row follow each other from `offset`, each as long as `weight`.
///
/// # Panics
/// When the heads do not fit into a row.
pub fn rms_norm_heads(
    turn: &Turn<'_>,
    values: &mut [f32],
    row_stride: usize,
    offset: usize,
    heads: usize,
    weight: &[f32],
    eps: f32,
) {
    let width = heads * weight.len();
    assert!(offset + width <= row_stride && values.len().is_multiple_of(row_stride), "heads exceed the row");
    if weight.is_empty() {
        return;
    }
    let isa = turn.isa();
    split_mut(turn, values, row_stride, &|_, rows| {
        for row in rows.chunks_exact_mut(row_stride) {
            let output = &mut row[offset..offset + width];
            let kernel = Norm { input: None, output, weight, bias: None, eps, center: false };
            // SAFETY: the kernel works on slices only.
            unsafe { dispatch(isa, kernel) };
        }
    });
}

/// Layer normalisation of each row of `input` (T, D) with `weight` (D) and `bias` (D).
///
/// # Panics
/// When the lengths do not fit.
pub fn layer_norm(
    turn: &Turn<'_>,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    output: &mut [f32],
) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    normalise(turn, Some(input), weight, bias, eps, true, output);
}

fn normalise(
    turn: &Turn<'_>,
    input: Option<&[f32]>,
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    center: bool,
    output: &mut [f32],
) {
    let width = weight.len();
    if width == 0 {
        return;
    }
    assert!(output.len().is_multiple_of(width), "rows are not as long as the weight");
    assert!(bias.is_none_or(|bias| bias.len() == width), "bias and weight differ in length");
    let isa = turn.isa();
    split_mut(turn, output, width, &|range, output| {
        let input = input.map(|input| &input[range.start * width..range.end * width]);
        // SAFETY: the kernel works on slices only.
        unsafe { dispatch(isa, Norm { input, output, weight, bias, eps, center }) };
    });
}
