//! One file per vendor: its parameters, and how its dialect is opened.

pub mod openai;
