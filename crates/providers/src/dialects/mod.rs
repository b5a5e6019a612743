//! Wire formats that more than one vendor speaks.

pub(crate) mod dashscope;
pub mod openai;
pub(crate) mod shared;
