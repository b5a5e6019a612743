//! What a model can do.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ChatRequest, EventStream, RequestContext, Result};

/// A model that generates text: our engine, a remote worker or a vendor.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// Starts a generation. The stream obeys the contract of [`crate::Event`]. The request's sampling is resolved:
    /// what is absent means "off" or "no limit".
    ///
    /// # Errors
    /// Before the first event: bad parameters, overload, an unavailable model.
    async fn chat(&self, request: ChatRequest, context: RequestContext) -> Result<EventStream>;

    /// Renders messages with the model's chat template.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when the model has no template, or the template's own error.
    fn apply_template(&self, messages: &[crate::Message], add_generation_prompt: bool) -> Result<String>;

    /// Turns text into token ids, special tokens parsed, without added ones.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when the tokenizer is not at hand (a vendor's model).
    fn tokenize(&self, text: &str) -> Result<Vec<u32>>;

    /// How many tokens the prompt of a request has, tools and all.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when the tokenizer is not at hand, and what the template finds wrong.
    async fn count_tokens(&self, request: &ChatRequest) -> Result<u32> {
        let _ = request;
        let message = "this model's tokenizer is not at hand, so that its prompts cannot be counted";
        Err(crate::Error::new(crate::ErrorKind::Unsupported, message))
    }

    /// Turns token ids into text, special tokens written out. Bytes that are no characters are replaced.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when the tokenizer is not at hand, [`crate::ErrorKind::InvalidRequest`] for an
    /// id outside the vocabulary.
    fn detokenize(&self, ids: &[u32]) -> Result<String> {
        let _ = ids;
        Err(crate::Error::new(crate::ErrorKind::Unsupported, "this model's tokenizer is not at hand"))
    }

    /// What makes it go on from a last message of the assistant instead of answering it: the name of a field that is true
    /// in [`crate::Message::extra`], or an empty name where nothing is needed. `None` when it cannot.
    fn continuation(&self) -> Option<&'static str> {
        None
    }

    /// Whether it goes on from a last message of the assistant as it is, without a field that says so.
    fn continues(&self) -> bool {
        self.continuation() == Some("")
    }

    /// The names that [`ChatRequest::extra`] may hold: a vendor's own parameters.
    fn extra_parameters(&self) -> &[&'static str] {
        &[]
    }

    /// Whether it talks to [`crate::Accounting`] itself, attempt by attempt. For others the runtime does.
    fn accounts(&self) -> bool {
        false
    }
}

/// What is known of a model. Also the answer to `get_meta` and `inspect`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// Family names of the checkpoint, as in `config.json` (`LlamaForCausalLM`).
    pub architectures: Vec<String>,
    /// Where it runs: `byzerllm` for our engine.
    pub engine: String,
    /// Tokens that fit into one sequence.
    pub context_length: Option<u32>,
    /// Whether the model has a chat template.
    pub chat_template: bool,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    /// The compute path in use, for example `exact f32, avx512`.
    pub compute: String,
    /// Languages that the model speaks, when the checkpoint says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Further facts, by name (head counts, layers, quantization, …).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

/// A name and when it was made, for listings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// The deployment's name.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
}

/// What a deployment can do. A missing task is a missing field, never an unimplemented method.
#[derive(Clone)]
pub struct ModelHandle {
    /// What is known of the model.
    pub info: Arc<ModelInfo>,
    /// The checkpoint's own generation defaults.
    pub defaults: crate::GenerationDefaults,
    /// Text generation.
    pub chat: Option<Arc<dyn ChatModel>>,
    /// Vectors for texts.
    pub embed: Option<Arc<dyn crate::EmbeddingModel>>,
    /// Scores for pairs of texts.
    pub rerank: Option<Arc<dyn crate::RerankModel>>,
}

impl ModelHandle {
    /// What the model can do, as a sentence goes on after its name: `makes embeddings; use …`.
    #[must_use]
    pub fn ability(&self) -> &'static str {
        match (&self.chat, &self.embed, &self.rerank) {
            (Some(_), Some(_), _) => "generates text and makes embeddings",
            (Some(_), None, _) => "generates text: use /v1/chat/completions, `byzerllm query` or `chat_oai`",
            (None, Some(_), Some(_)) => "makes embeddings and scores pairs of texts",
            (None, Some(_), None) => "makes embeddings: use /v1/embeddings, `byzerllm embed` or `emb`",
            (None, None, Some(_)) => {
                "scores pairs of texts: use /v1/rerank, `byzerllm rerank` or `emb_rerank`"
            }
            (None, None, None) => "can do nothing",
        }
    }
}
