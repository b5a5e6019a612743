//! An encoder's checkpoint on disk: a Hugging Face directory, with the files of sentence-transformers or without, or
//! a GGUF file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_core::ModelInfo;
use byzerllm_kernels::{Compute, ComputePool, Isa, Matrix};
use serde_json::{Map, Value as Json, json};

use super::families::{self, EncoderFamily};
use super::read::{self, Parts};
use super::{CpuEncoder, Encoder, EncoderConfig, EncoderSettings, EncoderTokenizer, EncoderWeights, Task};
use crate::arch::source::{Format, Source};
use crate::checkpoint::{TensorSummary, hugging_face};
use crate::decoder_weights::LinearWeights;
use crate::load_error::{LoadError, LoadResult};
use crate::weights::gguf::GgufFile;
use crate::weights::{MappedFile, TensorStore};

/// What the checkpoint at `path` is for: an encoder's family, or else a decoder. Reads configurations only.
///
/// # Errors
/// [`LoadError`] naming the file and the field at fault.
pub fn task_of(path: &Path) -> Result<Task, LoadError> {
    let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
    if metadata.is_dir() {
        if path.join(crate::checkpoint::ADAPTER_BASE).is_dir() {
            return Ok(Task::Generate);
        }
        let directory = read::network_directory(path)?;
        let (config_path, config) = hugging_face::read_config(&directory)?;
        return Ok(read::class(&config_path, &config)?.map_or(Task::Generate, |(_, _, task)| task));
    }
    let file = MappedFile::open(path)?;
    if !GgufFile::recognizes(&file) {
        let problem = "is neither a GGUF file nor a directory with config.json and weights";
        return Err(LoadError::malformed(path, "magic", problem));
    }
    let (gguf, _) = GgufFile::open(&file)?;
    let name = gguf.text("general.architecture").unwrap_or_default();
    Ok(families::by_gguf_name(name).map_or(Task::Generate, |_| read::gguf_task(&gguf, name)))
}

/// An opened checkpoint of an encoder.
#[derive(Debug)]
pub struct EncoderCheckpoint {
    path: PathBuf,
    source: Source,
    family: &'static EncoderFamily,
    /// The class name that the checkpoint gives, or its family's own.
    class: String,
    config: EncoderConfig,
    settings: EncoderSettings,
    /// The weights of the dense layers that other files add.
    dense: Vec<TensorStore>,
}

impl EncoderCheckpoint {
    /// Opens a Hugging Face directory or a GGUF file: maps files, reads headers and configurations and checks
    /// everything, including the shape of every tensor that the network needs.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the field at fault.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
        let Parts { source, family, class, config, settings, dense } = match metadata.is_dir() {
            true => read::directory(path)?,
            false => read::gguf(MappedFile::open(path)?)?,
        };
        let checkpoint = Self { path: path.into(), source, family, class, config, settings, dense };
        // The family's own reading of names and shapes is the check; the matrices stay in the mapping.
        checkpoint.weights()?;
        Ok(checkpoint)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The class name of its family, such as `BertModel`, for GGUF files too.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.class
    }

    /// The network's shape.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Prompts, labels and where each value is from.
    #[must_use]
    pub fn settings(&self) -> &EncoderSettings {
        &self.settings
    }

    /// All weights of the network, borrowed from the mapped files.
    fn weights(&self) -> LoadResult<EncoderWeights<'_>> {
        let mut weights = (self.family.weights)(&self.config, &self.source)?;
        for (layer, store) in self.config.head.dense.iter().zip(&self.dense) {
            weights.dense.push(read::dense(store, layer)?);
        }
        Ok(weights)
    }

    /// Bytes that the packed weights need in memory; tables stay in the mapped file.
    #[must_use]
    pub fn memory_estimate(&self, compute: Compute) -> u64 {
        let Ok(weights) = self.weights() else { return 0 };
        linears(&weights)
            .flat_map(|linear| &linear.parts)
            .map(|part| Matrix::packed_bytes(part.kind, part.rows, part.columns, compute))
            .sum()
    }

    /// All tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSummary> {
        let stores = std::iter::once(&self.source.tensors).chain(&self.dense);
        let summary = |entry: &crate::weights::TensorEntry| TensorSummary {
            name: entry.name.clone(),
            kind: entry.encoding.name(),
            shape: entry.shape.clone(),
            bytes: entry.range.len() as u64,
        };
        stores.flat_map(|store| store.entries()).map(summary).collect()
    }

    /// The metadata of the file or the fields of `config.json`, each shortened to a line.
    #[must_use]
    pub fn metadata(&self) -> Vec<(String, String)> {
        match &self.source.format {
            Format::Gguf { file, .. } => file.rendered(),
            Format::HuggingFace { config, .. } => {
                config.iter().map(|(name, value)| (name.clone(), hugging_face::render(value))).collect()
            }
        }
    }

    /// What is known of the model before it is loaded.
    #[must_use]
    pub fn info(&self, compute: Compute) -> ModelInfo {
        let EncoderConfig { head, .. } = &self.config;
        let mut details = Map::new();
        let mut put = |name: &str, value: Json| details.insert(name.to_owned(), value);
        put(
            "format",
            match &self.source.format {
                Format::Gguf { file, .. } => json!(format!("gguf v{}", file.version())),
                Format::HuggingFace { .. } => json!("huggingface"),
            },
        );
        put("task", json!(self.config.task.as_str()));
        put("family", json!(self.family.title));
        put("vocab_size", json!(self.config.vocab_size));
        put("hidden_size", json!(self.config.hidden_size));
        put("layers", json!(self.config.layers));
        put("heads", json!(self.config.heads));
        put("head_dim", json!(self.config.head_dim));
        put("intermediate_size", json!(self.config.intermediate_size));
        put("max_length", json!(self.config.max_length));
        put("max_length_from", json!(self.settings.max_length_origin.to_string()));
        match self.config.task {
            Task::Rerank => {
                put("labels", json!(self.settings.labels));
                if let Some(probabilities) = self.settings.probabilities {
                    put("file_scale", json!(if probabilities { "probability" } else { "logit" }));
                }
            }
            _ => {
                put("dimensions", json!(self.config.width()));
                let names: Vec<&str> = head.pooling.iter().map(|pooling| pooling.as_str()).collect();
                put("pooling", json!(names.join("+")));
                put("pooling_from", json!(self.settings.pooling_origin.to_string()));
                put("normalized", json!(head.normalize));
                put("normalized_from", json!(self.settings.normalize_origin.to_string()));
                if let Some(similarity) = self.settings.similarity {
                    put("similarity", json!(similarity.as_str()));
                }
                if !self.settings.prompts.is_empty() {
                    put("prompts", json!(self.settings.prompts));
                }
                if let Some(name) = &self.settings.default_prompt {
                    put("default_prompt", json!(name));
                }
            }
        }
        put("compute_mode", json!(compute));
        put("arithmetic", json!(compute.arithmetic()));
        put("instruction_set", json!(compute.instructions(Isa::active())));
        ModelInfo {
            architectures: vec![self.class.clone()],
            engine: "byzerllm".into(),
            context_length: u32::try_from(self.config.max_length).ok(),
            chat_template: false,
            weight_bytes: self.memory_estimate(compute),
            compute: compute.as_str().into(),
            languages: None,
            details,
        }
    }

    /// Builds the tokenizer.
    ///
    /// # Errors
    /// When the checkpoint has none, or one that cannot be run.
    pub fn tokenizer(&self) -> Result<EncoderTokenizer, LoadError> {
        let tokenizer = match &self.source.format {
            Format::Gguf { file, .. } => crate::tokenizer::Tokenizer::encoder_from_gguf(file.vocabulary()?)?,
            Format::HuggingFace { .. } => super::vocabulary::tokenizer(self.source.directory())?,
        };
        if tokenizer.vocab_size() > self.config.vocab_size {
            let problem = format!(
                "has {} tokens for {} rows of embeddings",
                tokenizer.vocab_size(),
                self.config.vocab_size
            );
            return Err(LoadError::malformed(self.source.directory(), "tokenizer", problem));
        }
        EncoderTokenizer::new(tokenizer, &self.config, &self.settings)
    }

    /// Packs the weights into a network on the CPU; `progress` is told the share that is done, from 0 to 1.
    ///
    /// # Errors
    /// When a tensor cannot be packed or the memory cannot be had.
    pub fn network(
        &self,
        pool: &Arc<ComputePool>,
        compute: Compute,
        progress: &dyn Fn(f32),
    ) -> Result<Box<dyn Encoder>, LoadError> {
        let weights = self.weights()?;
        let encoder = CpuEncoder::new(self.config.clone(), &weights, Arc::clone(pool), compute, progress)
            .map_err(|source| LoadError::Network { path: self.path.clone(), source })?;
        Ok(Box::new(encoder))
    }
}

fn linears<'w>(weights: &'w EncoderWeights<'_>) -> impl Iterator<Item = &'w LinearWeights<'w>> {
    let layers = weights.layers.iter().flat_map(|layer| [&layer.qkv, &layer.out, &layer.up, &layer.down]);
    layers.chain(&weights.dense)
}
