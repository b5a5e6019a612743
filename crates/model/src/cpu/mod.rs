//! The CPU implementation of [`crate::Network`] on `byzerllm-kernels`: no tensors, no framework.
//!
//! Every field of [`crate::config::DecoderConfig`] is served here; both compute modes share this one forward pass.

mod adapters;
mod balance;
mod check;
mod decoder;
mod fused;
mod layer;
mod rotary;
mod work;

use byzerllm_kernels::{CacheShape, CacheType, Compute};

pub use decoder::CpuDecoder;
pub(crate) use rotary::Rotary;

use crate::config::{AttentionConfig, CacheGroup, DecoderConfig};
use crate::quantize::Quantization;

/// How a decoder runs on the CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuOptions {
    /// How products are computed.
    pub compute: Compute,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Tokens per cache block.
    pub block_tokens: usize,
    /// What matrices of floats are brought to while they are packed.
    pub quantization: Quantization,
}

impl CpuOptions {
    /// Tokens per cache block unless told otherwise.
    pub const BLOCK_TOKENS: usize = 32;

    /// The options of a compute mode: the cache is exact in exact mode, of half precision in standard mode, of bytes
    /// in fast mode.
    #[must_use]
    pub fn new(compute: Compute) -> Self {
        let cache = match compute {
            Compute::Exact => CacheType::F32,
            Compute::Standard => CacheType::F16,
            Compute::Fast => CacheType::I8,
        };
        Self { compute, cache, block_tokens: Self::BLOCK_TOKENS, quantization: Quantization::Off }
    }

    /// The same options with matrices of floats brought to fewer bits.
    #[must_use]
    pub fn quantized(self, quantization: Quantization) -> Self {
        Self { quantization, ..self }
    }

    /// Bytes of one block of a cache group, all its layers together.
    #[must_use]
    pub fn block_bytes(&self, config: &DecoderConfig, group: &CacheGroup) -> u64 {
        let layers = group.layers.iter().map(|&layer| &config.layers[layer].attention);
        let shapes = layers.map(|attention| self.cache_shape(attention, 1));
        shapes.fold(0, |sum, shape| sum.saturating_add(shape.bytes().map_or(u64::MAX, |bytes| bytes as u64)))
    }

    /// The cache of one layer.
    fn cache_shape(&self, attention: &AttentionConfig, blocks: usize) -> CacheShape {
        CacheShape {
            blocks,
            block_tokens: self.block_tokens,
            kv_heads: attention.kv_heads,
            head_dim: attention.head_dim,
            kind: self.cache,
        }
    }
}
