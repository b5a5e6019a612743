//! What can be typed after `quantize`.

use std::path::PathBuf;

use byzerllm_model::OutputType;
use clap::{Args, ValueEnum};

use super::HubArguments;

/// The format of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArgument {
    /// One GGUF file.
    Gguf,
    /// A directory as transformers reads it.
    Safetensors,
}

/// Options of `quantize`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm quantize ./model-directory model-q4.gguf --type q4_k
  byzerllm quantize ./model-directory model-q4.gguf --type q4_k --calibration text.txt --perplexity test.txt
  byzerllm quantize ./model-f16.gguf model-q8.gguf --type q8_0
  byzerllm quantize ./model.gguf ./model-directory --type bf16
  byzerllm quantize ./model-directory ./model-gptq --type gptq4

Types of GGUF files are q4_0, q4_1, q4_k, q5_k, q6_k, q8_0, f16, bf16 and f32; of directories bf16, f16, f32, and gptq4 \
and gptq8, which is GPTQ's layout. Table and output head keep at least 6 bits. What is written appears whole or not at all.")]
pub(crate) struct QuantizeArguments {
    /// A GGUF file, a Hugging Face directory, or ORG/NAME.
    #[arg(value_name = "IN")]
    pub(crate) input: String,
    /// The file or directory to write.
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// How the weights are written.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: OutputType,
    /// gguf or safetensors [default: gguf where OUT ends in .gguf, else safetensors].
    #[arg(long, value_enum, hide_possible_values = true, value_name = "FORMAT")]
    pub(crate) format: Option<FormatArgument>,
    /// Weigh the columns of each matrix by what this text puts into them.
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Tokens of the calibration text that are computed at most.
    #[arg(long, default_value_t = 8192, value_name = "N", requires = "calibration", value_parser = clap::value_parser!(u32).range(16..=10_000_000))]
    pub(crate) calibration_tokens: u32,
    /// Measure the perplexity on this text before and after; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) perplexity: Vec<PathBuf>,
    /// Tokens per window of a text.
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(crate) context: u32,
    /// Replace what is at OUT.
    #[arg(long)]
    pub(crate) force: bool,
    /// Quantize weights again that have fewer than 8 bits already.
    #[arg(long)]
    pub(crate) requantize: bool,
    /// Compute threads [default: the cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) hub: HubArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
