//! What can be typed after `embed` and `rerank`.

use std::path::PathBuf;

use byzerllm_core::ScoreScale;
use clap::Args;

use super::{LoadArguments, ServerArguments};

/// Options of `embed`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm embed --model emb 'The panda is a bear.'
  byzerllm embed --model ./all-MiniLM-L6-v2 --file texts.txt > vectors.jsonl
  echo 'one text a line' | byzerllm embed --model emb

Each text becomes one line, a list of numbers; --json prints one answer with the tokens that were spent.")]
pub(crate) struct EmbedArguments {
    /// A deployment, a path, or ORG/NAME: pulled when missing.
    #[arg(long, value_name = "NAME|PATH|ORG/NAME")]
    pub(crate) model: String,
    /// The texts [default: the lines of --file, else of standard input].
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with one text a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Numbers per vector, where the model can give fewer than it has.
    #[arg(long, value_name = "N")]
    pub(crate) dimensions: Option<u32>,
    /// One of the model's own prompts by name, such as query or passage, to put before each text.
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt: Option<String>,
    /// Cut texts that are too long for the model instead of refusing them.
    #[arg(long)]
    pub(crate) truncate: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    /// Print the whole answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `rerank`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm rerank --model reranker --query 'what is panda?' 'hi' 'The giant panda is a bear.'
  byzerllm rerank --model ./bge-reranker-base --query 'what is panda?' --file passages.txt --top 3
  byzerllm rerank --model reranker --query 'what is panda?' --scale probability < passages.txt

The best come first, each with its score before it. Scores are the classifier's raw logits unless --scale says \
otherwise.")]
pub(crate) struct RerankArguments {
    /// A deployment, a path, or ORG/NAME: pulled when missing.
    #[arg(long, value_name = "NAME|PATH|ORG/NAME")]
    pub(crate) model: String,
    /// What is looked for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) query: String,
    /// What may answer it [default: the lines of --file, else of standard input].
    #[arg(value_name = "PASSAGE", conflicts_with = "file")]
    pub(crate) passages: Vec<String>,
    /// A file with one passage a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print only so many of the best.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
    /// What scores mean: logit or probability [default: logit].
    #[arg(long, value_name = "SCALE")]
    pub(crate) scale: Option<ScoreScale>,
    /// Cut pairs that are too long for the model instead of refusing them.
    #[arg(long)]
    pub(crate) truncate: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    /// Print the whole answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
