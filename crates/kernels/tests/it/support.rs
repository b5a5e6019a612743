//! Seeded random data, pools and naive references.

use byzerllm_kernels::{Compute, ComputePool, Isa, Matrix, PoolOptions, ProductInput, TensorType, Turn};

/// A small generator (splitmix64): the tests need repeatable data, not good randomness.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// In -1..1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Random but sane encoded values: any codes, scales around a hundredth.
    pub(crate) fn encoded(&mut self, kind: TensorType, count: usize) -> Vec<u8> {
        let blocks = count / kind.block_len();
        let mut bytes = Vec::with_capacity(blocks * kind.block_bytes());
        for _ in 0..blocks {
            let start = bytes.len();
            for _ in 0..kind.block_bytes() {
                bytes.push(self.next() as u8);
            }
            let block = &mut bytes[start..];
            let (d, m) = (self.float() * 0.02, self.float() * 0.1);
            let half = |value: f32| half::f16::from_f32(value).to_le_bytes();
            match kind {
                TensorType::F32 => block.copy_from_slice(&self.float().to_le_bytes()),
                TensorType::F16 => block.copy_from_slice(&half(self.float())),
                TensorType::BF16 => {
                    block.copy_from_slice(&half::bf16::from_f32(self.float()).to_le_bytes());
                }
                TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => {
                    block[..2].copy_from_slice(&half(d));
                }
                TensorType::Q4_1 | TensorType::Q5_1 => {
                    block[..2].copy_from_slice(&half(d));
                    block[2..4].copy_from_slice(&half(m));
                }
                TensorType::Q2K => {
                    block[80..82].copy_from_slice(&half(d));
                    block[82..84].copy_from_slice(&half(m * 0.1));
                }
                TensorType::Q3K => block[108..110].copy_from_slice(&half(d * 0.1)),
                TensorType::Q4K | TensorType::Q5K => {
                    block[..2].copy_from_slice(&half(d * 0.1));
                    block[2..4].copy_from_slice(&half(m * 0.1));
                }
                TensorType::Q6K => block[208..210].copy_from_slice(&half(d * 0.05)),
                TensorType::Int4 => {
                    block[..4].copy_from_slice(&d.to_le_bytes());
                    block[4..8].copy_from_slice(&m.to_le_bytes());
                }
            }
        }
        bytes
    }
}

pub(crate) fn pool(threads: usize, isa: Isa) -> ComputePool {
    ComputePool::with_isa(PoolOptions { threads: Some(threads), ..PoolOptions::default() }, isa).unwrap()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The root of the mean square of the differences, relative to that of the expected values.
pub(crate) fn typical_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let length =
        |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let differences = found.iter().zip(expected).map(|(found, expected)| f64::from(*found) - expected);
    let error = length(&mut differences.into_iter()) / length(&mut expected.iter().copied()).max(1e-12);
    if error.is_nan() { f64::INFINITY } else { error }
}

/// The largest difference, relative to the largest expected magnitude.
pub(crate) fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-12_f64, |largest, value| largest.max(value.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(found, expected)| {
            let difference = (f64::from(*found) - expected).abs();
            if difference.is_nan() { f64::INFINITY } else { difference }
        })
        .fold(0.0, f64::max);
    worst / scale
}

/// What a product reads, seen through the product with one fixed matrix.
pub(crate) fn seen(turn: &Turn<'_>, input: &ProductInput, through: &Matrix) -> Vec<u32> {
    let mut output = vec![0.0; input.rows() * through.rows()];
    through.apply_input(turn, input, None, &mut output);
    bits(&output)
}

/// The same rows, rounded from floats.
pub(crate) fn filled(turn: &Turn<'_>, compute: Compute, values: &[f32], cols: usize) -> ProductInput {
    let mut input = ProductInput::new(compute);
    input.fill(turn, values, cols);
    input
}
