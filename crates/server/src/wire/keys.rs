//! Bodies of the key routes.

use byzerllm_runtime::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::Capped;

/// A key to make.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "CreateKeyRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKeyBody {
    /// What to call it: letters, digits, dots, dashes and underscores.
    #[schemars(length(min = 1, max = 64))]
    pub(crate) name: String,
    /// Inference with every deployment when absent.
    pub(crate) scopes: Option<Capped<Scope, { byzerllm_runtime::Scopes::MAX }>>,
    /// Without it the key lives until it is revoked.
    pub(crate) expires_seconds: Option<u64>,
}

/// How to replace a secret.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RotateKeyRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateKeyBody {
    /// How long the old secret is accepted too.
    #[serde(default)]
    pub(crate) grace_seconds: u64,
}

/// The key that gets in no longer.
#[derive(Serialize, JsonSchema)]
pub(crate) struct RevokeKeyAnswer {
    pub(crate) name: String,
    pub(crate) revoked: bool,
}
