//! What a checkpoint holds and would need, read from its headers only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use byzerllm_core::{ModelInfo, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deployment::EffectiveValue;
use crate::lifecycle::{blocking, check_path};
use crate::loader::Loader;
use crate::local::LocalLoader;

/// What a checkpoint holds and would need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inspection {
    /// The checkpoint.
    pub path: PathBuf,
    /// `gguf v3`, `safetensors` or `torch`.
    pub format: String,
    /// Architecture, context length and further facts.
    pub info: ModelInfo,
    /// Number of weights.
    pub parameters: u64,
    /// Tensors by encoding.
    pub types: BTreeMap<String, TypeSummary>,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorSummary>,
    /// The source of the chat template.
    pub chat_template: Option<String>,
    /// What it would need, and what there is.
    pub memory: MemoryReport,
    /// Generation defaults of a deployment without defaults of its own, reached through the OpenAI API.
    pub effective: Vec<EffectiveValue>,
    /// The same, reached by a program written against Byzer-LLM.
    pub effective_legacy: Vec<EffectiveValue>,
}

/// Tensors of one encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TypeSummary {
    /// How many.
    pub tensors: u64,
    /// Their bytes in the files.
    pub bytes: u64,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorSummary {
    /// Its name in the file.
    pub name: String,
    /// Its encoding.
    pub kind: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Its bytes in the file.
    pub bytes: u64,
}

/// Memory that a deployment with default limits would need, and what there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryReport {
    /// Weights, packed for computing.
    pub weight_bytes: u64,
    /// Key/value cache of one full context.
    pub context_bytes: u64,
    /// Key/value cache that the runtime would choose.
    pub cache_bytes: u64,
    /// Memory that this process can still have, when the system says it.
    pub available_bytes: Option<u64>,
    /// Whether weights and one full context fit.
    pub fits: bool,
}

/// Reads the headers of a checkpoint; loads nothing.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::NotFound`] when nothing is there, and whatever is wrong with the files, naming file
/// and field.
pub async fn inspect(path: &Path) -> Result<Inspection> {
    let path = path.to_path_buf();
    blocking(move || inspect_with(&LocalLoader, &path)).await
}

pub(crate) fn inspect_with(loader: &dyn Loader, path: &Path) -> Result<Inspection> {
    check_path(path)?;
    loader.inspect(path)
}
