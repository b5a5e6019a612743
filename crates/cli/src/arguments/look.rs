//! What can be typed after the commands that measure and show: `bench`, `inspect`, `doctor`, `completion` and
//! `version`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::{LoadArguments, ServerArguments, TlsArguments};

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm bench --model ./model.gguf --prompt-tokens 512 --decode-tokens 64 --streams 1,16 --json
  byzerllm bench --model ./model.gguf --compute exact --threads 2
  byzerllm bench --model ./model.gguf --streams 1,16,32 --stages
  byzerllm bench --url http://127.0.0.1:8000 --model chat
  byzerllm bench --model ./model.gguf --perplexity english.txt --perplexity code.txt
  byzerllm bench --model ./all-MiniLM-L6-v2 --texts texts.txt

A path is measured in this process. With --url any OpenAI-compatible server is measured; its key is read \
from OPENAI_API_KEY. Every number is the median of the repeats; prompts are synthetic and the same in \
every run. In this process the ceilings of the machine are measured, too, and each row is held against them: the \
bytes and operations that its tokens need, and the share of the measured time that they would take at best. \
With --perplexity the compute modes are compared on texts instead: each window's second half is scored, and \
--compute leaves only that mode and the exact one. With --texts an encoder is measured: texts to rows, a single \
query, and how far each mode's rows are from those of the exact one.")]
pub(crate) struct BenchArguments {
    /// A path or ORG/NAME, or the model's name when --url is given.
    #[arg(long, value_name = "PATH|ORG/NAME|NAME")]
    pub(crate) model: String,
    /// Measure this server instead of an engine in this process.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Prompt length of the prefill measurement.
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) prompt_tokens: u32,
    /// Tokens that each stream generates.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) decode_tokens: u32,
    /// Prompt length of each decoding stream.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) decode_prompt_tokens: u32,
    /// How many streams decode at once, as a list.
    #[arg(long, default_value = "1,16", value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) streams: Vec<u32>,
    /// Measurements of each kind.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Show where the time of the steps goes.
    #[arg(long, conflicts_with = "url")]
    pub(crate) stages: bool,
    /// Measure quality instead of speed, on this text; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "url", "prompt_tokens", "decode_tokens", "decode_prompt_tokens", "streams", "repeat", "stages",
    ])]
    pub(crate) perplexity: Vec<PathBuf>,
    /// Tokens per window of a text.
    #[arg(long, default_value_t = 1024, value_name = "N", requires = "perplexity", value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    pub(crate) context: u32,
    /// For a model that embeds or reranks: measure it on this file, one text a line, or a query, a tab and a passage.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "url", "prompt_tokens", "decode_tokens", "decode_prompt_tokens", "streams", "perplexity",
    ])]
    pub(crate) texts: Option<PathBuf>,
    /// Write the rows of the last mode into this file: 32-bit floats, little-endian, row after row.
    #[arg(long, value_name = "FILE", requires = "texts")]
    pub(crate) rows: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm inspect ./model.gguf
  byzerllm inspect ./model-directory --tensors
  byzerllm inspect chat --json")]
pub(crate) struct InspectArguments {
    /// A GGUF file, a Hugging Face directory, or the name of a deployment when no such path exists.
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// List every tensor instead of counts per type.
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm doctor
  byzerllm doctor --port 8001 --json
  byzerllm doctor --url http://127.0.0.1:8000
  byzerllm doctor --host 0.0.0.0 --ssl-certfile cert.pem --ssl-keyfile key.pem

Give the options that `serve` will get, and what they would make wrong is found before. The exit code is 1 when \
something is wrong; a warning alone leaves it 0.")]
pub(crate) struct DoctorArguments {
    /// The port that a server would use.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// The address that a server would listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS", value_parser = super::serve::host)]
    pub(crate) host: IpAddr,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// The state directory that a server would use [default: as for serve].
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm completion bash > ~/.local/share/bash-completion/completions/byzerllm
  byzerllm completion zsh > ~/.zfunc/_byzerllm
  byzerllm completion fish > ~/.config/fish/completions/byzerllm.fish

It takes effect in the next shell. For zsh, ~/.zfunc must be in fpath before compinit runs.")]
pub(crate) struct CompletionArguments {
    /// The shell.
    pub(crate) shell: Shell,
}

/// Options of `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
