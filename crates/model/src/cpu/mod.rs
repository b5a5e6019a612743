//! The CPU implementation of [`crate::Network`] on `byzerllm-kernels`: no tensors, no framework.
//!
//! Every field of [`crate::config::DecoderConfig`] is served here; both compute modes share this one forward pass.

mod check;
mod decoder;
mod layer;
mod rotary;

use byzerllm_kernels::{CacheType, Compute};

pub use decoder::CpuDecoder;

/// How a decoder runs on the CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuOptions {
    /// How products are computed.
    pub compute: Compute,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Tokens per cache block.
    pub block_tokens: usize,
}

impl CpuOptions {
    /// Tokens per cache block unless told otherwise.
    pub const BLOCK_TOKENS: usize = 32;

    /// The options of a compute mode: an exact cache in exact mode, else half precision.
    #[must_use]
    pub fn new(compute: Compute) -> Self {
        let cache = match compute {
            Compute::Exact => CacheType::F32,
            Compute::Standard | Compute::Fast => CacheType::F16,
        };
        Self { compute, cache, block_tokens: Self::BLOCK_TOKENS }
    }
}
