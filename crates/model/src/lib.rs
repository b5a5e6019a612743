//! A checkpoint on disk turned into a network: weights, tokenizer, chat template and layers.
//!
//! [`Checkpoint::open`] maps the files and reads their headers; [`Checkpoint::network`] packs the weights. The public
//! interface is host slices only, so that another implementation of [`Network`] may compute elsewhere.

mod adapter;
mod arch;
mod batch;
mod checkpoint;
pub mod config;
mod cpu;
mod decoder_weights;
pub mod encoder;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod generation_config;
mod load_error;
mod network;
mod prefix;
mod quantize;
pub mod rope;
pub mod stages;
mod template;
mod tokenizer;
mod weights;
mod wire;
mod work;

pub use adapter::Adapter;
pub use arch::{Family, decoder_families, encoder_families, supported_architectures, type_contradiction};
pub use batch::{FREED, InputEmbeddings, Output, PackedBatch, Rows, SequenceInput};
pub use byzerllm_kernels::{Compute, Mask};
pub use checkpoint::{Checkpoint, CheckpointFormat, TensorSummary};
pub use cpu::{CpuDecoder, CpuOptions};
pub use decoder_weights::{
    DecoderWeights, LayerWeights, LinearWeights, LookupTable, LowRank, MatrixPart, MlpWeights, NormWeights,
    SharedBytes,
};
pub use encoder::{
    EncodedInput, Encoder, EncoderCheckpoint, EncoderConfig, EncoderInput, EncoderSettings, EncoderTokenizer,
    EncoderTraits, EncoderWeights, Task, task_of,
};
pub use generation_config::GenerationConfig;
pub use load_error::{LoadError, LoadResult};
pub use network::{AdapterId, Network, NetworkTraits};
pub use prefix::{PrefixContext, PromptContext};
pub use quantize::{
    Importance, OutputFormat, OutputType, Quantization, QuantizationReport, QuantizeError, QuantizeOptions,
    Summary,
};
pub use template::{ChatTemplate, SpecialTokens, TemplateError, template_from_tokenizer_config};
pub use tokenizer::{GgufVocabulary, StreamDecoder, Tokenizer, TokenizerError};
pub use work::{EncoderWork, StepWork, WorkModel};
