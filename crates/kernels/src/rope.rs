//! Rotary positions.

use crate::rows::split_mut;
use crate::threads::Turn;

/// Which two values of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeKind {
    /// Value `i` and value `i + rotary_dim / 2`.
    Half,
    /// Values `2 i` and `2 i + 1`.
    Interleaved,
}

/// Turns the first `rotary_dim` values of each head in place. `values` has rows of `row_stride` floats; the heads
/// of a row follow each other from `offset`. `cos` and `sin` are (T, rotary_dim / 2).
///
/// # Panics
/// When the heads do not fit into a row, or the tables do not fit the rows.
#[expect(clippy::too_many_arguments, reason = "one call per layer; the names are those of the formula")]
pub fn rope(
    turn: &Turn<'_>,
    values: &mut [f32],
    row_stride: usize,
    offset: usize,
    heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    cos: &[f32],
    sin: &[f32],
    kind: RopeKind,
) {
    let pairs = rotary_dim / 2;
    if pairs == 0 || heads == 0 {
        return;
    }
    assert!(offset + heads * head_dim <= row_stride && 2 * pairs <= head_dim, "heads exceed the row");
    let rows = values.len() / row_stride;
    assert!(values.len() == rows * row_stride && cos.len() == rows * pairs && sin.len() == rows * pairs);
    split_mut(turn, values, row_stride, &|range, part| {
        for (row, values) in range.zip(part.chunks_exact_mut(row_stride)) {
            let cos = &cos[row * pairs..(row + 1) * pairs];
            let sin = &sin[row * pairs..(row + 1) * pairs];
            for head in values[offset..offset + heads * head_dim].chunks_exact_mut(head_dim) {
                match kind {
                    RopeKind::Half => turn_halves(&mut head[..2 * pairs], cos, sin),
                    RopeKind::Interleaved => turn_pairs(&mut head[..2 * pairs], cos, sin),
                }
            }
        }
    });
}

fn turn_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        let (a, b) = (*x, *y);
        *x = a * cos - b * sin;
        *y = b * cos + a * sin;
    }
}

fn turn_pairs(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = b * cos + a * sin;
    }
}
