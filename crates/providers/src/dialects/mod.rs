//! Wire formats that more than one vendor speaks.

pub mod openai;
