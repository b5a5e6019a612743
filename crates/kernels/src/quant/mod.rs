//! The tensor encodings of GGUF files, reading and writing them.

mod blocks;
mod encode;
mod encode_k;
mod fit;
mod formats;

pub(crate) use blocks::{Block, decode};
pub use encode::quantize;
pub use formats::{TensorType, TensorView, dequantize};
