//! Integration tests of the model crate.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise; clippy excuses only the test functions themselves"
)]

mod allocations;
mod checkpoint;
mod hostile;
mod lora;
mod parity;
mod real_vocabularies;
mod support;
mod template;
mod tokenizer;
mod torch_files;
mod vocabularies;
mod work;
