//! The search for scales: weighted least squares over a handful of ways to round a group of values.
//!
//! Values are expected within -1..1, so that no square overflows and none of weight vanishes. Sums run in eight lanes,
//! which the compiler turns into vectors.

const LANES: usize = 8;

/// Adding and subtracting this rounds a float of moderate size to an integer.
const ROUNDING: f32 = 12_582_912.0;

/// How far around the plain rounding the search goes, in tenths of a code.
const REACH: i32 = 10;

/// Times that each start is fitted and rounded again.
const PASSES: usize = 2;

pub(super) fn rounded(value: f32) -> f32 {
    (value + ROUNDING) - ROUNDING
}

/// The sum of `f(i)` for every place of a group.
fn sum<const N: usize>(f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for start in (0..N).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    lanes.iter().sum()
}

/// The code of each value on the line `scale * code + minimum`, within `bottom..=top`.
pub(super) fn codes<const N: usize>(
    values: &[f32; N],
    (scale, minimum): (f32, f32),
    (bottom, top): (f32, f32),
) -> [f32; N] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    // The inverse of a scale below the normal numbers is none.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    std::array::from_fn(|i| rounded(((values[i] - minimum) * inverse).clamp(bottom, top)))
}

/// The weighted sum of squared differences between values and their codes' values.
pub(super) fn error<const N: usize>(
    values: &[f32; N],
    weights: &[f32; N],
    codes: &[f32; N],
    (scale, minimum): (f32, f32),
) -> f32 {
    sum::<N>(|i| {
        let difference = scale * codes[i] + minimum - values[i];
        weights[i] * difference * difference
    })
}

/// The line through given codes with the least error. `at_most_zero` holds for encodings whose minima cannot be above 0.
fn line<const N: usize>(
    values: &[f32; N],
    weights: &[f32; N],
    codes: &[f32; N],
    at_most_zero: bool,
) -> Option<(f32, f32)> {
    let weight = sum::<N>(|i| weights[i]);
    let value = sum::<N>(|i| weights[i] * values[i]);
    let code = sum::<N>(|i| weights[i] * codes[i]);
    let squares = sum::<N>(|i| weights[i] * codes[i] * codes[i]);
    let product = sum::<N>(|i| weights[i] * codes[i] * values[i]);
    let determinant = weight * squares - code * code;
    if determinant <= 0.0 {
        return None;
    }
    let minimum = (squares * value - code * product) / determinant;
    if at_most_zero && minimum > 0.0 {
        return (squares > 0.0).then(|| (product / squares, 0.0));
    }
    Some(((weight * product - code * value) / determinant, minimum))
}

/// Scale and minimum of a group with codes `0..=top`.
pub(super) fn affine<const N: usize>(
    values: &[f32; N],
    weights: &[f32; N],
    top: f32,
    at_most_zero: bool,
) -> (f32, f32) {
    let mut low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if at_most_zero {
        low = low.min(0.0);
    }
    if high <= low {
        return (0.0, low);
    }
    let plain = ((high - low) / top, low);
    let mut best = (plain, error(values, weights, &codes(values, plain, (0.0, top)), plain));
    for step in -REACH..=REACH {
        let mut start = ((high - low) / (top + 0.1 * step as f32), low);
        for _ in 0..PASSES {
            let rounded = codes(values, start, (0.0, top));
            let Some(line) = line(values, weights, &rounded, at_most_zero) else { break };
            start = line;
            let error = error(values, weights, &codes(values, line, (0.0, top)), line);
            if error < best.1 {
                best = (line, error);
            }
        }
    }
    best.0
}

/// The scale of a group with codes `-top..top` around zero.
pub(super) fn symmetric<const N: usize>(values: &[f32; N], weights: &[f32; N], top: f32) -> f32 {
    let largest = values
        .iter()
        .copied()
        .fold(0.0_f32, |most, value| if value.abs() > most.abs() { value } else { most });
    if largest == 0.0 {
        return 0.0;
    }
    // What a scale explains of the values: the more, the less error remains.
    let mut best = (0.0, 0.0);
    for step in -REACH..=REACH {
        let start = -largest / (top + 0.1 * step as f32);
        let codes = codes(values, (start, 0.0), (-top, top - 1.0));
        let squares = sum::<N>(|i| weights[i] * codes[i] * codes[i]);
        let product = sum::<N>(|i| weights[i] * codes[i] * values[i]);
        if squares > 0.0 && product * product > best.1 * squares {
            best = (product / squares, product * product / squares);
        }
    }
    best.0
}

/// The same for values with their weights, as many as there are; the scale is positive.
pub(super) fn symmetric_of(values: &[(f32, f32)], top: f32) -> f32 {
    let largest = values.iter().fold(0.0_f32, |most, (value, _)| most.max(value.abs()));
    let mut best = (0.0, 0.0);
    for step in -REACH..=2 * REACH {
        let inverse = (top + 0.1 * step as f32) / largest;
        let (mut squares, mut product) = (0.0_f32, 0.0_f32);
        for (value, weight) in values {
            let code = rounded((value * inverse).clamp(-top, top - 1.0));
            squares += weight * code * code;
            product += weight * code * value;
        }
        if squares > 0.0 && product * product > best.1 * squares {
            best = (product / squares, product * product / squares);
        }
    }
    best.0
}

/// How much each value's error counts: by its importance and, since large weights matter more, by its size.
pub(super) fn weights<const N: usize>(
    values: &[f32; N],
    importance: Option<&[f32]>,
    typical: f32,
) -> [f32; N] {
    let weigh = |given: Option<&[f32]>| -> [f32; N] {
        std::array::from_fn(|i| {
            given.map_or(1.0, |given| given[i]) * (2.0 * typical * typical + values[i] * values[i]).sqrt()
        })
    };
    let weights = weigh(importance);
    // A group of columns that no input ever touches is rounded like any other.
    if weights.iter().any(|weight| *weight > 0.0) { weights } else { weigh(None) }
}

/// The root of the mean square.
pub(super) fn root_mean_square<const N: usize>(values: &[f32; N]) -> f32 {
    (sum::<N>(|i| values[i] * values[i]) / N as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_lines_are_found() {
        let values: [f32; 32] = std::array::from_fn(|i| (i % 16) as f32 * 0.05 - 0.3);
        let (scale, minimum) = affine(&values, &[1.0; 32], 15.0, true);
        assert!((scale - 0.05).abs() < 1e-6 && (minimum + 0.3).abs() < 1e-6, "{scale} {minimum}");
        let values: [f32; 16] = std::array::from_fn(|i| (i as f32 - 8.0) * 0.125);
        assert!((symmetric(&values, &[1.0; 16], 8.0) - 0.125).abs() < 1e-6);
        assert_eq!(affine(&[-0.25; 32], &[1.0; 32], 15.0, true), (0.0, -0.25));
        assert_eq!(symmetric(&[0.0; 16], &[1.0; 16], 8.0), 0.0);
    }

    #[test]
    fn columns_without_importance_count_alike() {
        let values: [f32; 16] = std::array::from_fn(|i| i as f32 / 16.0);
        assert_eq!(weights(&values, Some(&[0.0; 16]), 0.5), weights(&values, None, 0.5));
    }
}
