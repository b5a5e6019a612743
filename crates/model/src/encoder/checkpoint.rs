//! An encoder's checkpoint on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_core::ModelInfo;
use byzerllm_kernels::{Compute, ComputePool};

use super::{Encoder, EncoderConfig, EncoderSettings, EncoderTokenizer, Task};
use crate::arch::source::Source;
use crate::checkpoint::TensorSummary;
use crate::load_error::LoadError;

/// What the checkpoint at `path` is for. Reads configurations only.
///
/// # Errors
/// [`LoadError`] naming the file and the field at fault.
pub fn task_of(path: &Path) -> Result<Task, LoadError> {
    Err(LoadError::unsupported(path, "task", "encoders are not read yet"))
}

/// An opened checkpoint of an encoder.
#[derive(Debug)]
pub struct EncoderCheckpoint {
    path: PathBuf,
    source: Source,
    config: EncoderConfig,
    settings: EncoderSettings,
}

impl EncoderCheckpoint {
    /// Opens a Hugging Face directory or a GGUF file: maps files, reads headers and configurations and checks
    /// everything, including the shape of every tensor that the network needs.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the field at fault.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Err(LoadError::unsupported(path, "task", "encoders are not read yet"))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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

    /// What is known of the model before it is loaded.
    #[must_use]
    pub fn info(&self, compute: Compute) -> ModelInfo {
        ModelInfo {
            architectures: Vec::new(),
            engine: "byzerllm".into(),
            context_length: u32::try_from(self.config.max_length).ok(),
            chat_template: false,
            weight_bytes: self.memory_estimate(compute),
            compute: compute.as_str().into(),
            languages: None,
            details: serde_json::Map::new(),
        }
    }

    /// Bytes that the packed weights need in memory.
    #[must_use]
    pub fn memory_estimate(&self, compute: Compute) -> u64 {
        let _ = compute;
        0
    }

    /// All tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSummary> {
        Vec::new()
    }

    /// The metadata of the file or the fields of `config.json`, each shortened to a line.
    #[must_use]
    pub fn metadata(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Builds the tokenizer.
    ///
    /// # Errors
    /// When the checkpoint has none, or one that cannot be run.
    pub fn tokenizer(&self) -> Result<EncoderTokenizer, LoadError> {
        Err(LoadError::unsupported(&self.path, "tokenizer", "encoders are not read yet"))
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
        let _ = (pool, compute, progress);
        Err(LoadError::unsupported(&self.path, "network", "encoders are not computed yet"))
    }
}
