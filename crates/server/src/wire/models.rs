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
}

impl From<DeploymentStatus> for Model {
    fn from(status: DeploymentStatus) -> Self {
        Self { id: status.spec.name, object: "model", created: status.created, owned_by: "byzerllm" }
    }
}
