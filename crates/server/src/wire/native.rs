//! Bodies of our own routes.

use std::path::PathBuf;

use byzerllm_core::{Message, ModelInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::Capped;
use crate::limits;

/// `POST /byzerllm/v1/template`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateBody {
    pub(crate) model: String,
    pub(crate) messages: Capped<Message, { limits::MESSAGES }>,
    #[serde(default = "yes")]
    pub(crate) add_generation_prompt: bool,
}

fn yes() -> bool {
    true
}

/// The rendered conversation.
#[derive(Serialize)]
pub(crate) struct TemplateAnswer {
    pub(crate) text: String,
}

/// `POST /byzerllm/v1/tokenize`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeBody {
    pub(crate) model: String,
    pub(crate) text: String,
}

/// The token ids.
#[derive(Serialize)]
pub(crate) struct TokenizeAnswer {
    pub(crate) ids: Vec<u32>,
}

/// `GET /byzerllm/v1/models/{name}`.
#[derive(Serialize)]
pub(crate) struct ModelAnswer {
    pub(crate) name: String,
    pub(crate) info: Option<ModelInfo>,
    pub(crate) labels: Map<String, Value>,
    pub(crate) created: u64,
}

/// `POST /byzerllm/v1/inspect`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InspectBody {
    pub(crate) path: PathBuf,
}

/// `DELETE /byzerllm/v1/deployments/{name}`.
#[derive(Serialize)]
pub(crate) struct UndeployAnswer {
    pub(crate) name: String,
    pub(crate) deleted: bool,
}
