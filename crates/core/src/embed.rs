//! Vectors for texts.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Notice, RequestContext, Result, Usage};

/// One text to embed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EmbeddingInput {
    /// Text.
    Text(String),
    /// Token ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// A request for vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingRequest {
    /// The deployment's name.
    pub model: String,
    /// What to embed, at least one.
    pub inputs: Vec<EmbeddingInput>,
    /// Numbers per vector, where the model can give fewer than it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// Whether inputs that are too long for the model are cut, which a notice then tells; otherwise they are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncate: bool,
    /// The name of one of the model's own prompts (`query`, `passage`), which is put before each text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Parameters of one vendor only, under the vendor's own names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// The vectors of a request, in the order of its inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// One vector per input, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// The tokens spent.
    pub usage: Usage,
    /// What was worth telling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// A model that turns texts into vectors.
#[async_trait]
pub trait EmbeddingModel: Send + Sync {
    /// Embeds all inputs of a request, or none.
    ///
    /// # Errors
    /// Bad parameters, input that is too long, overload, an unavailable model, a vendor's failure.
    async fn embed(&self, request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings>;

    /// The names that [`EmbeddingRequest::extra`] may hold.
    fn extra_parameters(&self) -> &[&'static str] {
        &[]
    }

    /// Whether it talks to [`crate::Accounting`] itself, attempt by attempt. For others the runtime does.
    fn accounts(&self) -> bool {
        false
    }
}
