//! Model listings.

use byzerllm_runtime::DeploymentStatus;
use serde::Serialize;

/// `GET /v1/models`.
#[derive(Serialize)]
pub(crate) struct ModelList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model>,
}

/// One model.
#[derive(Serialize)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
}

impl From<DeploymentStatus> for Model {
    fn from(status: DeploymentStatus) -> Self {
        Self { id: status.spec.name, object: "model", created: status.created, owned_by: "byzerllm" }
    }
}
