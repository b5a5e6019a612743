//! Repeatable values.

use byzerllm_kernels::TensorType;

/// Values in -1..1.
pub(crate) fn noise(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Encoded values with plain scales: only their speed matters.
pub(crate) fn encoded(kind: TensorType, count: usize) -> Vec<u8> {
    if kind == TensorType::F32 {
        return noise(count).iter().flat_map(|value| value.to_le_bytes()).collect();
    }
    let bytes = count / kind.block_len() * kind.block_bytes();
    noise(bytes).iter().map(|value| ((value + 1.0) * 30.0) as u8).collect()
}
