//! Bodies of the key routes.

use byzerllm_runtime::Scope;
use serde::{Deserialize, Serialize};

use super::fields::Capped;

/// `POST /byzerllm/v1/keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKeyBody {
    pub(crate) name: String,
    /// Inference with every deployment when absent.
    pub(crate) scopes: Option<Capped<Scope, { byzerllm_runtime::Scopes::MAX }>>,
    /// Without it the key lives until it is revoked.
    pub(crate) expires_seconds: Option<u64>,
}

/// `POST /byzerllm/v1/keys/{name}/rotate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateKeyBody {
    /// How long the old secret is accepted too.
    #[serde(default)]
    pub(crate) grace_seconds: u64,
}

/// `DELETE /byzerllm/v1/keys/{name}`.
#[derive(Serialize)]
pub(crate) struct RevokeKeyAnswer {
    pub(crate) name: String,
    pub(crate) revoked: bool,
}
