//! Property tests of the kernels against naive references, on every instruction set of the machine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod attention;
mod decoder;
mod dequantize;
mod elementwise;
mod encoder;
mod matrix;
mod pool;
mod quantize;
mod support;
