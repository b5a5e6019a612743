//! A deployment's states, and what is told about it.

use byzerllm_core::{Error, GenerationDefaults, ModelInfo, Origin, Result, resolve};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::DeploymentSpec;

/// Where a deployment stands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeploymentState {
    /// Its weights are being prepared.
    Loading {
        /// From 0 to 1.
        progress: f32,
    },
    /// It takes requests.
    Ready,
    /// It takes no new requests and finishes those it has.
    Draining,
    /// It could not be loaded; it stays listed, and stored, until it is undeployed or replaced.
    Failed {
        /// Why.
        error: Error,
    },
}

impl Clone for DeploymentState {
    fn clone(&self) -> Self {
        match self {
            Self::Loading { progress } => Self::Loading { progress: *progress },
            Self::Ready => Self::Ready,
            Self::Draining => Self::Draining,
            Self::Failed { error } => Self::Failed { error: error.duplicate() },
        }
    }
}

impl DeploymentState {
    /// The word of the `state` tag.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Loading { .. } => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed { .. } => "failed",
        }
    }
}

/// An effective generation default and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectiveValue {
    /// The parameter.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Which layer set it.
    pub origin: Origin,
}

/// What is told about a deployment. In JSON the fields of [`DeploymentState`] stand beside the others: `"state":
/// "ready"`, and `progress` or `error` where the state has one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// What was asked for.
    pub spec: DeploymentSpec,
    /// Where it stands.
    #[serde(flatten)]
    pub state: DeploymentState,
    /// What is known of the model, once it is loaded.
    pub info: Option<ModelInfo>,
    /// When it was first deployed, in seconds since 1970.
    pub created: u64,
    /// Requests that run or wait.
    pub active: u32,
    /// Generation defaults of a request through the OpenAI API.
    pub effective: Vec<EffectiveValue>,
}

/// The effective values of some layers of defaults, each with its origin.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`] naming a value out of range.
pub fn effective_values(layers: &[(Origin, &GenerationDefaults)]) -> Result<Vec<EffectiveValue>> {
    let resolved = resolve(layers)?;
    let values = serde_json::to_value(&resolved.sampling)
        .map_err(|error| Error::internal("generation defaults cannot be written as JSON").with_source(error))?;
    let pairs = resolved.origins.into_iter().filter_map(|(name, origin)| {
        values.get(name).map(|value| EffectiveValue { name: name.to_owned(), value: value.clone(), origin })
    });
    Ok(pairs.collect())
}
