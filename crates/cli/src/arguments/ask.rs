//! What can be typed after `chat`, `generate` and `query`.

use std::path::PathBuf;

use byzerllm_runtime::{Compute, Quantization};
use clap::Args;

use super::{BYZER, ByzerArguments, HubArguments, ServerArguments};

/// Sampling options shared by `chat` and `generate`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SamplingArguments {
    /// 0 always takes the most likely token.
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Keep the smallest set of tokens that reaches this probability.
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Keep the K most likely tokens.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Same seed, same text.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// New tokens at most.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
}

/// Where the model of `chat` and `generate` lives and how it is loaded.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArguments {
    /// For a model in this process: how products are computed: exact, standard or fast [default: standard].
    #[arg(long, value_name = "MODE")]
    pub(crate) compute: Option<Compute>,
    /// For a model in this process: bring its floats to 4 or 8 bits while it is loaded, or off [default: off].
    #[arg(long, value_name = "BITS")]
    pub(crate) quantization: Option<Quantization>,
    /// For a model in this process: compute threads [default: the cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) hub: HubArguments,
}

/// Options of `chat`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm chat
  byzerllm chat --model chat --url http://127.0.0.1:8000
  byzerllm chat --model ./model.gguf --system 'Answer in one sentence.'

A path runs in this process, a name on the server. Type /help inside. Without a terminal each input line \
is one message.")]
pub(crate) struct ChatArguments {
    /// A deployment, a path, or ORG/NAME [default: the server's only deployment].
    #[arg(long, value_name = "NAME|PATH|ORG/NAME")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Instructions that stand above the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
}

/// Options of `generate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm generate --model ./model.gguf --prompt 'What is the capital of France?' --temperature 0
  byzerllm generate --model chat --prompt 'Once upon a time' --raw --max-tokens 64
  byzerllm generate --model chat --prompt - --json < question.txt")]
pub(crate) struct GenerateArguments {
    /// A deployment, a path, or ORG/NAME: pulled when missing.
    #[arg(long, value_name = "NAME|PATH|ORG/NAME")]
    pub(crate) model: String,
    /// The question; `-` reads standard input.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Instructions that stand above the question.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Continue the text as it is, without the model's chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    /// Print the whole answer as JSON at the end instead of streaming text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `query`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    override_usage = "byzerllm query [OPTIONS] --model <NAME> --query <TEXT>",
    after_help = "Examples:
  byzerllm query --model chat --query 'What is the capital of France?'
  byzerllm query --model chat --query 'Write a haiku.' --output_file haiku.txt

Sampling that the deployment does not set is Byzer-LLM's: temperature 0.9, top_p 0.7, 1024 new tokens. \
`byzerllm generate` has options for it."
)]
pub(crate) struct QueryArguments {
    /// The deployment.
    #[arg(long, value_name = "NAME", required_unless_present = "file")]
    pub(crate) model: Option<String>,
    /// The question.
    #[arg(long, value_name = "TEXT", required_unless_present = "file")]
    pub(crate) query: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// How the question becomes a prompt: auto, the model's own template, or empty, the text as it is.
    #[arg(long, default_value = "auto", value_name = "TEMPLATE", help_heading = BYZER)]
    pub(crate) template: String,
    /// Write the answer to this file; base64 is decoded for .mp3 and .wav.
    #[arg(long, value_name = "FILE", help_heading = BYZER)]
    pub(crate) output_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) byzer: ByzerArguments,
}
