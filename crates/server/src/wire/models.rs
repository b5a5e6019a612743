//! Model listings.

use byzerllm_runtime::DeploymentStatus;
use schemars::JsonSchema;
use serde::Serialize;

use super::describe::words;

/// The deployments that take requests of the caller.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ModelList {
    #[schemars(transform = words(&["list"]))]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model>,
}

/// A deployment as OpenAI's API lists models.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Model {
    /// Its name.
    pub(crate) id: String,
    #[schemars(transform = words(&["model"]))]
    pub(crate) object: &'static str,
    /// In seconds since 1970.
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// Of an adapter: the deployment that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    /// Of an adapter: where it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
}

impl Model {
    /// A deployment and its adapters.
    pub(crate) fn with_adapters(status: DeploymentStatus) -> Vec<Self> {
        let adapters: Vec<Self> =
            status.spec.adapters.keys().map(|name| Self::of_adapter(&status, name)).collect();
        std::iter::once(Self::from(status)).chain(adapters).collect()
    }

    /// An adapter of a deployment.
    pub(crate) fn of_adapter(status: &DeploymentStatus, name: &str) -> Self {
        Self {
            id: format!("{}:{name}", status.spec.name),
            object: "model",
            created: status.created,
            owned_by: "byzerllm",
            parent: Some(status.spec.name.clone()),
            root: status.spec.adapters.get(name).map(|path| path.display().to_string()),
        }
    }
}

impl From<DeploymentStatus> for Model {
    fn from(status: DeploymentStatus) -> Self {
        Self {
            id: status.spec.name,
            object: "model",
            created: status.created,
            owned_by: "byzerllm",
            parent: None,
            root: None,
        }
    }
}
