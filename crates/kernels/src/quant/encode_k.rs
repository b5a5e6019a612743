//! Writing the encodings of 256 values, whose groups' scales are multiples of shared ones.
//!
//! Each group is fitted alone; then the multiples are chosen around what was found, and the shared scales are fitted to
//! all 256 values.

use super::encode::{half, nibbles};
use super::fit::{affine, codes, error, root_mean_square, rounded, symmetric, weights};
use super::formats::TensorType;

const VALUES: usize = 256;
/// Times that multiples and shared scales are fitted in turn.
const ROUNDS: usize = 2;

/// The values within -1..1, and what they were divided by; `None` for zeros.
fn normalized(values: &[f32]) -> Option<([f32; VALUES], f32)> {
    let unit = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    if unit == 0.0 {
        return None;
    }
    let mut scaled = [0.0; VALUES];
    scaled.iter_mut().zip(values).for_each(|(scaled, value)| *scaled = value / unit);
    Some((scaled, unit))
}

/// Groups of `N` values with their weights.
fn groups<const N: usize, const G: usize>(
    values: &[f32; VALUES],
    importance: Option<&[f32]>,
) -> [([f32; N], [f32; N]); G] {
    let typical = root_mean_square(values);
    std::array::from_fn(|group| {
        let range = group * N..(group + 1) * N;
        let mut part = [0.0; N];
        part.copy_from_slice(&values[range.clone()]);
        let weights = weights(&part, importance.map(|importance| &importance[range]), typical);
        (part, weights)
    })
}

/// What a half-precision number stands for where values were divided by `unit`.
fn stored(value: f32, unit: f32) -> f32 {
    half(value * unit).to_f32() / unit
}

/// Scales and minima per 32 values, as 6-bit multiples: 4 or 5 bits a code.
pub(super) fn pairs(kind: TensorType, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let Some((scaled, unit)) = normalized(values) else { return };
    let top = if kind == TensorType::Q5K { 31.0 } else { 15.0 };
    let groups: [_; 8] = groups::<32, 8>(&scaled, importance);
    let lines = groups.map(|(values, weights)| affine(&values, &weights, top, true));
    let largest = |of: fn(&(f32, f32)) -> f32| lines.iter().map(of).fold(0.0_f32, f32::max);
    let mut shared =
        (stored(largest(|line| line.0) / 63.0, unit), stored(largest(|line| -line.1) / 63.0, unit));
    let mut factors = lines.map(|(scale, minimum)| {
        (multiple(scale, shared.0, (0.0, 63.0)), multiple(-minimum, shared.1, (0.0, 63.0)))
    });
    let mut best = (f32::INFINITY, shared, factors, [[0.0; 32]; 8]);
    for _ in 0..=ROUNDS {
        let mut total = 0.0;
        let mut all = [[0.0; 32]; 8];
        for ((group, factors), chosen) in groups.iter().zip(&mut factors).zip(&mut all) {
            total += choose(group, shared, factors, chosen, top);
        }
        if total < best.0 {
            best = (total, shared, factors, all);
        }
        shared = refit(&groups, &factors, &all, shared, unit);
    }
    let (_, shared, factors, chosen) = best;
    out[..2].copy_from_slice(&half(shared.0 * unit).to_le_bytes());
    out[2..4].copy_from_slice(&half(shared.1 * unit).to_le_bytes());
    six_bit_pairs(&factors.map(|(scale, minimum)| (scale as u8, minimum as u8)), &mut out[4..16]);
    let chosen = chosen.map(|codes| codes.map(|code| code as u8));
    let low = if kind == TensorType::Q5K {
        for (run, codes) in chosen.iter().enumerate() {
            for (high, code) in out[16..48].iter_mut().zip(codes) {
                *high |= (code >> 4) << run;
            }
        }
        &mut out[48..]
    } else {
        &mut out[16..]
    };
    for (out, codes) in low.chunks_exact_mut(32).zip(chosen.as_flattened().chunks_exact(64)) {
        nibbles(codes, out);
    }
}

/// The whole multiple of `shared` next to `value`.
fn multiple(value: f32, shared: f32, (least, most): (f32, f32)) -> f32 {
    let ratio = value / shared;
    if ratio.is_finite() { rounded(ratio.clamp(least, most)) } else { 0.0 }
}

/// Tries the multiples next to those that were found, and keeps the best with its codes. Returns the error.
fn choose(
    (values, weights): &([f32; 32], [f32; 32]),
    shared: (f32, f32),
    factors: &mut (f32, f32),
    chosen: &mut [f32; 32],
    top: f32,
) -> f32 {
    let around = |factor: f32| [factor, factor - 1.0, factor + 1.0].map(|factor| factor.clamp(0.0, 63.0));
    let (scales, minima) = (around(factors.0), around(factors.1));
    let mut least = f32::INFINITY;
    for scale in scales {
        for minimum in minima {
            let line = (shared.0 * scale, -shared.1 * minimum);
            let codes = codes(values, line, (0.0, top));
            let error = error(values, weights, &codes, line);
            if error < least {
                (least, *factors, *chosen) = (error, (scale, minimum), codes);
            }
        }
    }
    least
}

/// The shared scale and minimum with the least error for given multiples and codes.
fn refit(
    groups: &[([f32; 32], [f32; 32]); 8],
    factors: &[(f32, f32); 8],
    codes: &[[f32; 32]; 8],
    shared: (f32, f32),
    unit: f32,
) -> (f32, f32) {
    let [mut aa, mut ab, mut bb, mut ax, mut bx] = [0.0_f32; 5];
    for (((values, weights), (scale, minimum)), codes) in groups.iter().zip(factors).zip(codes) {
        for ((value, weight), code) in values.iter().zip(weights).zip(codes) {
            let (a, b) = (scale * code, -minimum);
            aa += weight * a * a;
            ab += weight * a * b;
            bb += weight * b * b;
            ax += weight * a * value;
            bx += weight * b * value;
        }
    }
    let determinant = aa * bb - ab * ab;
    let fitted = if determinant > 1e-6 * aa * bb {
        ((ax * bb - bx * ab) / determinant, (bx * aa - ax * ab) / determinant)
    } else if aa > 0.0 {
        ((ax - ab * shared.1) / aa, shared.1)
    } else {
        shared
    };
    // Negative scales have no place in the format's unsigned multiples.
    let valid = |value: f32, before: f32| if value.is_finite() && value >= 0.0 { value } else { before };
    (stored(valid(fitted.0, shared.0), unit), stored(valid(fitted.1, shared.1), unit))
}

/// Eight pairs of 6-bit numbers in 12 bytes.
fn six_bit_pairs(factors: &[(u8, u8); 8], out: &mut [u8]) {
    for group in 0..4 {
        let ((scale, minimum), (later_scale, later_minimum)) = (factors[group], factors[group + 4]);
        out[group] = scale | (later_scale >> 4) << 6;
        out[group + 4] = minimum | (later_minimum >> 4) << 6;
        out[group + 8] = (later_scale & 15) | (later_minimum & 15) << 4;
    }
}

/// Scales per 16 values, as 8-bit multiples: 6 bits a code.
pub(super) fn singles(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let Some((scaled, unit)) = normalized(values) else { return };
    let groups: [_; 16] = groups::<16, 16>(&scaled, importance);
    let scales = groups.map(|(values, weights)| symmetric(&values, &weights, 32.0));
    let largest = scales
        .iter()
        .copied()
        .fold(0.0_f32, |most, scale| if scale.abs() > most.abs() { scale } else { most });
    let mut shared = stored(largest / -128.0, unit);
    let mut factors = scales.map(|scale| multiple(scale, shared, (-128.0, 127.0)));
    let mut best = (f32::INFINITY, shared, factors, [[0.0; 16]; 16]);
    for _ in 0..=ROUNDS {
        let (mut total, mut all) = (0.0, [[0.0; 16]; 16]);
        let (mut squares, mut product) = (0.0_f32, 0.0_f32);
        for (((values, weights), factor), chosen) in groups.iter().zip(&mut factors).zip(&mut all) {
            let mut least = f32::INFINITY;
            for tried in [*factor, *factor - 1.0, *factor + 1.0].map(|factor| factor.clamp(-128.0, 127.0)) {
                let line = (shared * tried, 0.0);
                let codes = codes(values, line, (-32.0, 31.0));
                let error = error(values, weights, &codes, line);
                if error < least {
                    (least, *factor, *chosen) = (error, tried, codes);
                }
            }
            total += least;
            for ((value, weight), code) in values.iter().zip(weights).zip(&*chosen) {
                squares += weight * (*factor * code).powi(2);
                product += weight * *factor * code * value;
            }
        }
        if total < best.0 {
            best = (total, shared, factors, all);
        }
        let fitted = stored(product / squares, unit);
        shared = if fitted.is_finite() { fitted } else { shared };
    }
    let (_, shared, factors, chosen) = best;
    let mut all = [0_u8; VALUES];
    all.iter_mut().zip(chosen.as_flattened()).for_each(|(to, code)| *to = (code + 32.0) as u8);
    let (low, rest) = out.split_at_mut(128);
    let (high, rest) = rest.split_at_mut(64);
    for ((low, high), codes) in
        low.chunks_exact_mut(64).zip(high.chunks_exact_mut(32)).zip(all.chunks_exact(128))
    {
        for place in 0..32 {
            let four = [codes[place], codes[place + 32], codes[place + 64], codes[place + 96]];
            low[place] = (four[0] & 15) | (four[2] & 15) << 4;
            low[place + 32] = (four[1] & 15) | (four[3] & 15) << 4;
            high[place] = four[0] >> 4 | (four[1] >> 4) << 2 | (four[2] >> 4) << 4 | (four[3] >> 4) << 6;
        }
    }
    rest.iter_mut().zip(factors).for_each(|(byte, factor)| *byte = factor as i8 as u8);
    rest[16..].copy_from_slice(&half(shared * unit).to_le_bytes());
}
