//! What can be typed after `convert`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Options of `convert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm convert onnx-bert ./bge-small-onnx ./bge-small-en --pooling cls
  byzerllm convert onnx-bert ./reranker-onnx ./ms-marco-minilm")]
pub(crate) struct ConvertArguments {
    /// From which format.
    #[command(subcommand)]
    pub(crate) action: ConvertAction,
}

/// From which format.
#[derive(Debug, Subcommand)]
pub(crate) enum ConvertAction {
    /// Make a Hugging Face directory of 32-bit floats of a BERT in an ONNX file, 8-bit integers included.
    OnnxBert(OnnxBertArguments),
}

/// Options of `convert onnx-bert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm convert onnx-bert ./bge-small-onnx ./bge-small-en --pooling cls
  byzerllm convert onnx-bert ./model.onnx ./minilm --tokenizer ./minilm-files --pooling mean

The new directory gets config.json, model.safetensors and the tokenizer's files. Shapes, nonlinearity and attention \
heads are read off the graph and checked against config.json, where there is one.")]
pub(crate) struct OnnxBertArguments {
    /// A directory with model.onnx and the tokenizer's files, or an ONNX file.
    #[arg(value_name = "FROM")]
    pub(crate) input: PathBuf,
    /// The directory to make; it must not exist.
    #[arg(value_name = "TO")]
    pub(crate) output: PathBuf,
    /// How vectors are pooled: writes the files of sentence-transformers, with vectors of unit length.
    #[arg(long, value_enum)]
    pub(crate) pooling: Option<PoolingWord>,
    /// Attention heads, where neither the graph nor config.json shows them.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) heads: Option<u16>,
    /// Where the tokenizer's files are, when not beside the graph.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolingWord {
    /// The first token's.
    Cls,
    /// Their mean.
    Mean,
}
