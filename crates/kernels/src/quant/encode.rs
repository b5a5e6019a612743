//! Writing the encodings of GGUF files: floats become blocks of codes and scales.
//!
//! Without importance, the encodings of 32 values are rounded as the format's reference does, bit for bit. With it, and in
//! the K encodings always, scales are searched for (the idea of weighted searches: llama.cpp's k-quants).

use half::{bf16, f16};

use super::encode_k;
use super::fit::{affine, codes, root_mean_square, symmetric, symmetric_of, weights};
use super::formats::TensorType;
use crate::error::KernelError;

/// The largest finite f16.
const LARGEST: f32 = 65_504.0;

impl TensorType {
    /// The encodings that [`quantize`] writes.
    pub const ENCODED: [TensorType; 11] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::BF16,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q5_0,
        TensorType::Q5_1,
        TensorType::Q8_0,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
    ];
}

/// Encodes rows of floats. `importance` says per column how much an error counts (mean squares of a matrix' inputs, for
/// example); its length is that of a row, and `values` holds whole rows.
///
/// Scales beyond half precision are cut to its range, so that what is decoded is always finite.
///
/// # Errors
/// When the encoding is not one of [`TensorType::ENCODED`], the lengths do not fit, a value is not finite or too large for
/// 16 bits, or an importance is negative or not finite.
pub fn quantize(
    kind: TensorType,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), KernelError> {
    if !TensorType::ENCODED.contains(&kind) {
        return Err(KernelError::Encoding { kind });
    }
    let needed = kind.row_bytes(values.len()).ok_or(KernelError::Columns {
        kind,
        block: kind.block_len(),
        cols: values.len(),
    })?;
    if needed != out.len() {
        return Err(KernelError::Length { kind, rows: 1, cols: values.len(), needed, found: out.len() });
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(KernelError::NotFinite { what: "value", index });
    }
    if let Some(importance) = importance {
        let columns = importance.len();
        let fits =
            columns > 0 && columns.is_multiple_of(kind.block_len()) && values.len().is_multiple_of(columns);
        if !fits {
            return Err(KernelError::Stack { first: values.len(), other: columns });
        }
        if let Some(index) = importance.iter().position(|value| !(value.is_finite() && *value >= 0.0)) {
            return Err(KernelError::NotFinite { what: "importance", index });
        }
    }
    if kind.is_float() {
        return floats(kind, values, out);
    }
    let (length, bytes) = (kind.block_len(), kind.block_bytes());
    for (index, (values, out)) in values.chunks_exact(length).zip(out.chunks_exact_mut(bytes)).enumerate() {
        let importance = importance.map(|importance| {
            let start = index * length % importance.len();
            &importance[start..start + length]
        });
        out.fill(0);
        match kind {
            TensorType::Q4K | TensorType::Q5K => encode_k::pairs(kind, values, importance, out),
            TensorType::Q6K => encode_k::singles(values, importance, out),
            _ => block(kind, values, importance, out),
        }
    }
    Ok(())
}

fn floats(kind: TensorType, values: &[f32], out: &mut [u8]) -> Result<(), KernelError> {
    for (index, (value, out)) in values.iter().zip(out.chunks_exact_mut(kind.block_bytes())).enumerate() {
        let fits = match kind {
            TensorType::F16 => {
                let half = f16::from_f32(*value);
                out.copy_from_slice(&half.to_le_bytes());
                half.is_finite()
            }
            TensorType::BF16 => {
                let half = bf16::from_f32(*value);
                out.copy_from_slice(&half.to_le_bytes());
                half.is_finite()
            }
            _ => {
                out.copy_from_slice(&value.to_le_bytes());
                true
            }
        };
        if !fits {
            return Err(KernelError::Range { kind, index });
        }
    }
    Ok(())
}

/// A half-precision number within its finite range.
pub(super) fn half(value: f32) -> f16 {
    f16::from_f32(value.clamp(-LARGEST, LARGEST))
}

/// One over a scale; 0 where there is none.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// One block of 32 values.
fn block(kind: TensorType, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let mut group = [0.0_f32; 32];
    group.copy_from_slice(values);
    let (bits, minima) = match kind {
        TensorType::Q4_0 => (4, false),
        TensorType::Q4_1 => (4, true),
        TensorType::Q5_0 => (5, false),
        TensorType::Q5_1 => (5, true),
        _ => return bytes(&group, out),
    };
    let top = f32::from((1_u8 << bits) - 1);
    let (scale, minimum, codes) = match (importance, minima) {
        (None, false) => plain_symmetric(&group, top),
        (None, true) => plain_affine(&group, top),
        (Some(importance), minima) => searched(&group, importance, top, minima),
    };
    out[..2].copy_from_slice(&scale.to_le_bytes());
    let mut at = 2;
    if minima {
        out[2..4].copy_from_slice(&minimum.to_le_bytes());
        at = 4;
    }
    if bits == 5 {
        let fifth = codes.iter().enumerate().fold(0_u32, |bits, (i, code)| bits | u32::from(code >> 4) << i);
        out[at..at + 4].copy_from_slice(&fifth.to_le_bytes());
        at += 4;
    }
    nibbles(&codes, &mut out[at..]);
}

/// The low four bits of twice as many codes as there are bytes: the first half below, the second above.
pub(super) fn nibbles(codes: &[u8], out: &mut [u8]) {
    let (first, second) = codes.split_at(codes.len() / 2);
    for (byte, (low, high)) in out.iter_mut().zip(first.iter().zip(second)) {
        *byte = (low & 15) | (high << 4);
    }
}

/// As the reference: the largest value becomes the outermost code. Products and sums are of f64, as its fused
/// multiply-add has them.
fn plain_symmetric(values: &[f32; 32], top: f32) -> (f16, f16, [u8; 32]) {
    let largest = values
        .iter()
        .copied()
        .fold(0.0_f32, |most, value| if value.abs() > most.abs() { value } else { most });
    let middle = (top + 1.0) / 2.0;
    let scale = largest / -middle;
    let inverse = inverse(scale);
    let codes = values.map(|value| {
        let code = (f64::from(value) * f64::from(inverse) + f64::from(middle + 0.5)) as f32;
        code.clamp(0.0, top) as u8
    });
    (half(scale), f16::ZERO, codes)
}

fn plain_affine(values: &[f32; 32], top: f32) -> (f16, f16, [u8; 32]) {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Each part on its own, so that the whole range of floats has a finite difference.
    let scale = high / top - low / top;
    let scale = if (high - low).is_finite() { (high - low) / top } else { scale };
    let inverse = inverse(scale);
    let codes = values.map(|value| ((value - low) * inverse + 0.5).clamp(0.0, top) as u8);
    (half(scale), half(low), codes)
}

/// The best scale for weighted errors.
fn searched(values: &[f32; 32], importance: &[f32], top: f32, minima: bool) -> (f16, f16, [u8; 32]) {
    let unit = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    if unit == 0.0 {
        return (f16::ZERO, f16::ZERO, [0; 32]);
    }
    let scaled = values.map(|value| value / unit);
    let weights = weights(&scaled, Some(importance), root_mean_square(&scaled));
    let middle = (top + 1.0) / 2.0;
    let (line, shift) = match minima {
        true => (affine(&scaled, &weights, top, false), 0.0),
        false => ((symmetric(&scaled, &weights, middle), 0.0), middle),
    };
    let (scale, minimum) = (half(line.0 * unit), half(line.1 * unit));
    // What was rounded to half precision is what will be decoded.
    let line = (scale.to_f32() / unit, minimum.to_f32() / unit);
    let codes = codes(&scaled, line, (-shift, top - shift));
    (scale, minimum, codes.map(|code| (code + shift) as u8))
}

/// The scale of a group of values, of any length, that loses least with codes `-top..top` around zero; in half precision.
/// `importance` has the group's length.
///
/// # Errors
/// When a value is not finite.
pub fn symmetric_scale(values: &[f32], importance: Option<&[f32]>, top: f32) -> Result<f16, KernelError> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(KernelError::NotFinite { what: "value", index });
    }
    let unit = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    if unit == 0.0 {
        return Ok(f16::ZERO);
    }
    let squares: f32 = values.iter().map(|value| (value / unit).powi(2)).sum();
    let typical = (squares / values.len() as f32).sqrt();
    let given = importance.filter(|given| given.len() == values.len() && given.iter().any(|one| *one > 0.0));
    let weigh = |(i, value): (usize, &f32)| {
        let value = value / unit;
        let weight = given.map_or(1.0, |given| given[i]) * (2.0 * typical * typical + value * value).sqrt();
        (value, weight)
    };
    let weighed: Vec<(f32, f32)> = values.iter().enumerate().map(weigh).collect();
    Ok(half(symmetric_of(&weighed, top).abs() * unit))
}

/// 8 bits: the largest value becomes 127.
fn bytes(values: &[f32; 32], out: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    out[..2].copy_from_slice(&half(scale).to_le_bytes());
    for (byte, value) in out[2..].iter_mut().zip(values) {
        *byte = (value * inverse).round().clamp(-128.0, 127.0) as i8 as u8;
    }
}
