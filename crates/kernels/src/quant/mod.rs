//! The tensor encodings of GGUF files, and reading them.

mod blocks;
mod formats;

pub(crate) use blocks::{Block, decode};
pub use formats::{TensorType, TensorView, dequantize};
