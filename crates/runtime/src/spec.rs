//! What a deployment is, as the user describes it and as the store keeps it.

use std::path::{Path, PathBuf};

use byzerllm_core::{Error, GenerationDefaults, Result};
use byzerllm_model::Compute;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A named model and how to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSpec {
    /// The name that requests use: 1 to 128 letters, digits, dots, dashes or underscores.
    #[schemars(length(min = 1, max = Self::MAX_NAME))]
    pub name: String,
    /// The checkpoint, an absolute path: a GGUF file or a Hugging Face directory.
    pub model: PathBuf,
    /// How weights and activations are multiplied.
    #[serde(default)]
    #[schemars(schema_with = "compute")]
    pub compute: Compute,
    /// Generation defaults of this deployment; they stand between the request's and the checkpoint's.
    #[serde(default)]
    pub defaults: GenerationDefaults,
    /// What the deployment may use.
    #[serde(default)]
    pub limits: Limits,
    /// Words of the caller, kept and shown but never interpreted (`backend`, `pretrained_model_type`, …).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub labels: Map<String, Value>,
}

/// The words of [`Compute`], whose crate knows no schemas.
fn compute(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Compute::ALL })
}

/// What a deployment may use. What is absent is chosen by the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sequences that the engine computes in one step; 256 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_sequences: Option<u32>,
    /// Requests that may wait; 1024 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u32>,
    /// Tokens per sequence, when less than the model's own context length.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub context_length: Option<u32>,
    /// Bytes of key/value cache. When absent: what 32 full contexts need, at most a quarter of the available
    /// memory, at least one full context.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cache_bytes: Option<u64>,
    /// Requests that run at once; `max_sequences` when absent. Further ones wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
}

impl Limits {
    /// Sequences per step when the spec does not say.
    pub const MAX_SEQUENCES: u32 = 256;
    /// Waiting requests when the spec does not say.
    pub const QUEUE_LIMIT: u32 = 1024;
}

impl DeploymentSpec {
    /// The longest name, in characters.
    pub const MAX_NAME: usize = 128;

    /// A spec with defaults throughout.
    pub fn new(name: impl Into<String>, model: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            model: model.into(),
            compute: Compute::default(),
            defaults: GenerationDefaults::default(),
            limits: Limits::default(),
            labels: Map::new(),
        }
    }

    /// Sets one value by name, as `--set key=value` and `infer_params` give it. Sampling keys may carry the prefix
    /// `generation.` or `gen.`.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] for a value that does not fit, and for an unknown key, naming
    /// the nearest valid one.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        crate::settings::apply(self, key, value)
    }

    /// The keys that [`DeploymentSpec::set`] knows.
    pub fn settings() -> impl Iterator<Item = &'static str> {
        crate::settings::keys()
    }

    /// Checks everything that can be checked without looking at the model.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] naming the field.
    pub fn validate(&self) -> Result<()> {
        validate_name(&self.name)?;
        validate_path(&self.model)?;
        self.defaults.validate()?;
        let limits = &self.limits;
        let counts = [
            ("max_sequences", limits.max_sequences.map(u64::from)),
            ("context_length", limits.context_length.map(u64::from)),
            ("cache_bytes", limits.cache_bytes),
            ("concurrency", limits.concurrency.map(u64::from)),
        ];
        for (name, value) in counts {
            if value == Some(0) {
                return Err(Error::invalid(
                    name,
                    format!("{name} must be at least 1; leave it out for the default"),
                ));
            }
        }
        Ok(())
    }
}

pub(crate) fn validate_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > DeploymentSpec::MAX_NAME {
        let max = DeploymentSpec::MAX_NAME;
        return Err(Error::invalid(
            "name",
            format!("a deployment's name must have 1 to {max} characters, got {length}"),
        ));
    }
    if let Some(bad) = name.chars().find(|&c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return Err(Error::invalid(
            "name",
            format!("a deployment's name may hold letters, digits, '.', '_' and '-', not {bad:?}"),
        ));
    }
    if name.chars().all(|c| c == '.') {
        return Err(Error::invalid("name", "a deployment's name must not consist of dots only"));
    }
    Ok(())
}

/// Refuses paths that mean different things to client and server.
pub(crate) fn validate_path(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("model", "the path of the model is missing"));
    }
    if path.is_relative() {
        let path = path.display();
        return Err(Error::invalid(
            "model",
            format!(
                "the path of the model must be absolute, got '{path}': the server may run in another directory"
            ),
        ));
    }
    Ok(())
}
