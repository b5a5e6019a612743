//! Property tests of the kernels against naive references, on every instruction set of the machine.

mod attention;
mod dequantize;
mod elementwise;
mod matrix;
mod pool;
mod support;
