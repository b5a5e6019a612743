//! Answers of the routes that say whether the server works.

use schemars::JsonSchema;
use serde::Serialize;

use super::describe::words;

/// How the process is.
#[derive(Serialize, JsonSchema)]
pub(crate) struct HealthAnswer {
    /// `alive` of `/healthz`, `ready` of `/readyz`.
    #[schemars(transform = words(&["alive", "ready"]))]
    pub(crate) status: &'static str,
}

/// The version of the server.
#[derive(Serialize, JsonSchema)]
pub(crate) struct VersionAnswer {
    /// As `byzerllm version` prints it.
    pub(crate) version: &'static str,
}
