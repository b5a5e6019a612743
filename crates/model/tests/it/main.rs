//! Integration tests of the model crate.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise; clippy excuses only the test functions themselves"
)]

mod adapters;
mod allocations;
mod checkpoint;
mod encoder_steps;
mod encoders;
mod encoders_hostile;
mod encoders_real;
mod families;
mod glm;
mod hostile;
mod integers;
mod lora;
mod parity;
mod quantize;
mod quantize_files;
mod quantize_real;
mod real_vocabularies;
mod support;
mod template;
mod tokenizer;
mod torch_files;
mod vocabularies;
mod work;
