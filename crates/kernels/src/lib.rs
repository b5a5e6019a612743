//! CPU numerics of the engine: packed quantized weights and their products, paged attention, norms, rotary
//! positions and activations, on one shared compute pool.
//!
//! Invariant: an output row never depends on the other rows of a batch, on the number of threads, or on the
//! instruction set. Every sum runs in an order fixed by constants, with the same fused multiply-adds everywhere.

mod activation;
mod attention;
mod ceilings;
mod cores;
mod error;
mod isa;
mod lanes;
mod math;
mod matrix;
mod memory;
mod norm;
mod prenorm;
mod quant;
mod residual;
mod rope;
mod rows;
mod threads;
mod vocabulary;

pub use activation::{Activation, activate, add, add_scaled, gated, soft_cap};
pub use attention::{
    AttentionSequence, AttentionShape, CachePlane, CacheShape, CacheType, DenseQueries, DenseShape,
    FREED_BLOCK, Mask, attend, attend_dense, attend_input,
};
pub use ceilings::Ceilings;
pub use cores::usable_cores;
pub use error::KernelError;
pub use isa::Isa;
pub use matrix::{Compute, Matrix, ProductInput};
pub use memory::Scratch;
pub use norm::{layer_norm, rms_norm, rms_norm_heads};
pub use prenorm::{RowNorm, add_then_norm};
pub use quant::{TensorType, TensorView, dequantize, quantize, symmetric_scale};
pub use residual::{LayerNorm, add_norm};
pub use rope::{RopeKind, rope};
pub use rows::each_row;
pub use threads::{ComputePool, PoolOptions, Turn};
pub use vocabulary::{WEIGHT_BLOCK, greatest, weigh};
