//! What a deployment is, as the user describes it and as the store keeps it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use byzerllm_core::{Error, FrontEnd, GenerationDefaults, Result};
use byzerllm_model::{Compute, Quantization};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::provider::ProviderSpec;
use crate::routing::RouteSpec;

/// A named model and how to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSpec {
    /// The name that requests use: 1 to 128 letters, digits, dots, dashes or underscores.
    #[schemars(length(min = 1, max = Self::MAX_NAME))]
    pub name: String,
    /// The checkpoint, an absolute path: a GGUF file or a Hugging Face directory. Exactly one of `model`, `provider` and
    /// `route` is given.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub model: PathBuf,
    /// A vendor's model, in place of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderSpec>,
    /// Other deployments that answer in its name, in place of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteSpec>,
    /// How weights and activations are multiplied.
    #[serde(default)]
    #[schemars(schema_with = "compute")]
    pub compute: Compute,
    /// What a checkpoint's floats are brought to while it is loaded: 4 or 8 bits (true means 4), or `off`; `gptq` and `awq` say what the
    /// checkpoint must be. When absent
    /// they stay as the file has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantization")]
    pub quantization: Option<Quantization>,
    /// LoRA adapters in PEFT's format, by name: directories, absolute paths. Requests for the model `deployment:name` use
    /// them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adapters: BTreeMap<String, PathBuf>,
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

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Where the answers of a deployment come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A checkpoint on the machine that the runtime is on.
    Local(&'a Path),
    /// A vendor's model.
    Provider(&'a ProviderSpec),
    /// Other deployments.
    Route(&'a RouteSpec),
}

/// The words of [`Compute`], whose crate knows no schemas.
fn compute(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Compute::ALL })
}

/// The words, numbers and truths that [`Quantization`] is read from.
fn quantization(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["4", "8", "off", "gptq", "awq", 4, 8, true, false] })
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
    /// Requests that run at once; when absent `max_sequences`, and 8192 for a vendor's model. Further ones wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
    /// Requests that begin within any minute; without a limit when absent. Further ones wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u32>,
    /// Tokens, of prompts and answers together, that are spent within any minute; without a limit when absent. Further
    /// requests wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<u64>,
    /// Answers that are kept for requests that come again, word for word; 1000 when absent. They are kept when one of the
    /// three limits on kept answers is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub answer_cache_entries: Option<u64>,
    /// Bytes of kept answers; 64 MiB when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub answer_cache_bytes: Option<u64>,
    /// Seconds that an answer is kept; 3600 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub answer_cache_seconds: Option<u64>,
}

impl Limits {
    /// Sequences per step when the spec does not say.
    pub const MAX_SEQUENCES: u32 = 256;
    /// Waiting requests when the spec does not say.
    pub const QUEUE_LIMIT: u32 = 1024;
    /// Requests that a vendor's model answers at once when the spec does not say.
    pub const PROVIDER_CONCURRENCY: u32 = 8192;
    /// Kept answers when answers are kept and the spec does not say how many.
    pub const ANSWER_CACHE_ENTRIES: u64 = 1000;
    /// Bytes of kept answers when answers are kept and the spec does not say how many.
    pub const ANSWER_CACHE_BYTES: u64 = 64 << 20;
    /// Seconds that an answer is kept when answers are kept and the spec does not say how many.
    pub const ANSWER_CACHE_SECONDS: u64 = 3600;
}

impl DeploymentSpec {
    /// Adapters that a deployment may have at once.
    pub const MAX_ADAPTERS: usize = 64;
    /// The longest name, in characters.
    pub const MAX_NAME: usize = 128;

    /// A spec with defaults throughout.
    pub fn new(name: impl Into<String>, model: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            model: model.into(),
            provider: None,
            route: None,
            compute: Compute::default(),
            quantization: None,
            adapters: BTreeMap::new(),
            defaults: GenerationDefaults::default(),
            limits: Limits::default(),
            labels: Map::new(),
        }
    }

    /// A vendor's model, without parameters yet. The vendor's name may carry `saas/`.
    pub fn of_provider(name: impl Into<String>, vendor: impl Into<String>) -> Self {
        Self { provider: Some(ProviderSpec::new(vendor)), ..Self::new(name, PathBuf::new()) }
    }

    /// Other deployments that answer under one name.
    pub fn of_route(name: impl Into<String>, route: RouteSpec) -> Self {
        Self { route: Some(route), ..Self::new(name, PathBuf::new()) }
    }

    /// Where its answers come from: what [`DeploymentSpec::validate`] found to be the only one that is given.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        match (&self.provider, &self.route) {
            (Some(provider), _) => Source::Provider(provider),
            (None, Some(route)) => Source::Route(route),
            (None, None) => Source::Local(&self.model),
        }
    }

    /// What fills in where request, deployment and checkpoint are silent. A vendor has defaults of its own, which stand
    /// in the place of OpenAI's; programs written against Byzer-LLM bring theirs to every model.
    pub(crate) fn front_end_defaults(&self, front_end: FrontEnd) -> &'static GenerationDefaults {
        static SILENT: LazyLock<GenerationDefaults> = LazyLock::new(GenerationDefaults::default);
        match (self.source(), front_end) {
            (Source::Provider(_), FrontEnd::OpenAi) | (Source::Route(_), _) => &SILENT,
            _ => front_end.defaults(),
        }
    }

    /// As JSON with its secrets, for those who send it to a server. `Serialize` writes `***` in their place.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] when it is no JSON: a path that is no text.
    pub fn exposed(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self).map_err(|error| {
            Error::invalid("model", format!("the deployment cannot be written as JSON: {error}"))
        })?;
        if let Some(provider) = &self.provider {
            value["provider"]["parameters"] = provider.exposed();
        }
        Ok(value)
    }

    /// Sets one value by name, as `--set key=value` and `infer_params` give it. Sampling keys may carry the prefix
    /// `generation.` or `gen.`; parameters of a vendor carry `saas.`.
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
        crate::adapters::validate(&self.adapters)?;
        self.validate_source()?;
        self.defaults.validate()?;
        let limits = &self.limits;
        let counts = [
            ("max_sequences", limits.max_sequences.map(u64::from)),
            ("context_length", limits.context_length.map(u64::from)),
            ("cache_bytes", limits.cache_bytes),
            ("concurrency", limits.concurrency.map(u64::from)),
            ("requests_per_minute", limits.requests_per_minute.map(u64::from)),
            ("tokens_per_minute", limits.tokens_per_minute),
            ("answer_cache_entries", limits.answer_cache_entries),
            ("answer_cache_bytes", limits.answer_cache_bytes),
            ("answer_cache_seconds", limits.answer_cache_seconds),
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

    fn validate_source(&self) -> Result<()> {
        let given = [!is_empty(&self.model), self.provider.is_some(), self.route.is_some()];
        match given.iter().filter(|given| **given).count() {
            0 => {
                return Err(Error::invalid(
                    "model",
                    "what answers is missing; give model, provider or route",
                ));
            }
            1 => {}
            _ => {
                return Err(Error::invalid(
                    "model",
                    "a deployment has one of model, provider and route; leave the others out",
                ));
            }
        }
        match self.source() {
            Source::Local(path) => validate_path(path),
            Source::Provider(provider) => {
                provider.validate()?;
                self.refuse_engine_settings()
            }
            Source::Route(route) => {
                route.validate()?;
                self.refuse_engine_settings()
            }
        }
    }

    /// What only our own engine could heed is refused where it does not run.
    fn refuse_engine_settings(&self) -> Result<()> {
        let limits = &self.limits;
        let given = [
            ("compute", self.compute != Compute::default()),
            ("adapters", !self.adapters.is_empty()),
            ("quantization", self.quantization.is_some_and(|bits| bits != Quantization::Off)),
            ("context_length", limits.context_length.is_some()),
            ("max_sequences", limits.max_sequences.is_some()),
            ("cache_bytes", limits.cache_bytes.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                Err(Error::invalid(name, format!("{name} is for models that run here; leave it out")))
            }
            None => Ok(()),
        }
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
