//! The tensor encodings of GGUF files, reading and writing them.

mod blocks;
mod convert;
mod encode;
mod encode_k;
mod fit;
mod formats;

pub(crate) use blocks::{Block, decode};
pub use encode::{quantize, symmetric_scale};
pub use formats::{TensorType, TensorView, dequantize};
