//! `POST /v1/embeddings`, in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use byzerllm_core::{EmbeddingInput, EmbeddingRequest, Embeddings, Error, ErrorKind, Input, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::completions::Prompts;
use super::describe::{NoEffect, words};
use super::notes::Notes;
use super::scale::{EncoderUsage, truncation};
use crate::limits;

/// Texts to turn into vectors.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "EmbeddingRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingBody {
    /// The deployment.
    model: String,
    /// A text, the ids of its tokens, or a list of either: all texts or all lists of ids.
    input: Prompts<{ limits::EMBEDDING_INPUTS }>,
    /// Numbers per vector, for models that can give fewer than they have.
    #[serde(default)]
    #[schemars(range(min = 1))]
    dimensions: Option<u32>,
    /// A list of numbers, or the bytes of 32-bit floats, little end first, in base64; `float` when absent.
    #[serde(default)]
    #[schemars(transform = words(&["float", "base64"]))]
    encoding_format: Option<String>,
    /// Whether an input that is too long for the model is cut, which the answer then tells; otherwise it is refused.
    /// For models that run here.
    #[serde(default)]
    truncate: Option<bool>,
    /// Cuts inputs to so many tokens, -1 to what the model reads at most. For models that run here.
    #[serde(default)]
    #[schemars(range(min = -1))]
    truncate_prompt_tokens: Option<i64>,
    /// One of the model's own prompts by name (`query`, `passage`), which is put before each text. For models that run
    /// here.
    #[serde(default)]
    prompt_name: Option<String>,
    /// Who asks, in words of the caller.
    #[serde(default, rename = "user")]
    _user: NoEffect<String>,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Float,
    Base64,
}

impl EmbeddingBody {
    /// The request in our words, and how to write the answer.
    pub(crate) fn into_request(self, mut extra: Map<String, Value>) -> Result<(EmbeddingRequest, Encoding)> {
        let encoding = match self.encoding_format.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => {
                let message = "`encoding_format` must be 'float' or 'base64'";
                return Err(Error::invalid("encoding_format", message));
            }
        };
        if self.dimensions == Some(0) {
            return Err(Error::invalid("dimensions", "`dimensions` must be at least 1"));
        }
        let inputs: Vec<EmbeddingInput> = self.input.0.into_iter().filter_map(embeddable).collect();
        if inputs.is_empty() {
            return Err(Error::invalid("input", "`input` must hold at least one text"));
        }
        let empty = inputs.iter().position(|input| match input {
            EmbeddingInput::Text(text) => text.is_empty(),
            EmbeddingInput::Tokens(ids) => ids.is_empty(),
        });
        if let Some(place) = empty {
            let field = if inputs.len() == 1 { "input".to_owned() } else { format!("input[{place}]") };
            return Err(Error::invalid(field.clone(), format!("`{field}` is empty and has no vector")));
        }
        let truncate = truncation(self.truncate, self.truncate_prompt_tokens, &mut extra)?;
        let request = EmbeddingRequest {
            model: self.model,
            inputs,
            dimensions: self.dimensions,
            truncate,
            prompt: self.prompt_name,
            extra,
        };
        Ok((request, encoding))
    }
}

fn embeddable(input: Input) -> Option<EmbeddingInput> {
    match input {
        Input::Text(text) => Some(EmbeddingInput::Text(text)),
        Input::Tokens(ids) => Some(EmbeddingInput::Tokens(ids)),
        Input::Messages(_) => None,
    }
}

/// The vectors.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EmbeddingList")]
pub(crate) struct EmbeddingAnswer {
    object: &'static str,
    /// In the order of the inputs.
    data: Vec<Embedding>,
    /// The deployment.
    model: String,
    usage: EncoderUsage,
    /// What there is to tell beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// The vector of one input.
#[derive(Debug, Serialize, JsonSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// The numbers, or their bytes in base64.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

impl EmbeddingAnswer {
    /// The answer to a request with so many inputs, and what there is to tell beside it.
    pub(crate) fn new(
        model: String,
        inputs: usize,
        encoding: Encoding,
        embeddings: Embeddings,
    ) -> Result<(Self, Notes)> {
        let Embeddings { vectors, usage, notices } = embeddings;
        if vectors.len() != inputs {
            let message = format!("the model gave {} vectors for {inputs} inputs", vectors.len());
            return Err(Error::new(ErrorKind::Upstream, message).with_usage(usage));
        }
        if vectors.iter().flatten().any(|number| !number.is_finite()) {
            let message = "the model gave a vector with a number that is infinite or none";
            return Err(Error::new(ErrorKind::Upstream, message).with_usage(usage));
        }
        let mut notes = Notes::default();
        notices.iter().for_each(|notice| notes.notice(notice));
        notes.usage(&usage);
        let data = vectors.into_iter().enumerate();
        let data = data.map(|(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: match encoding {
                Encoding::Float => Vector::Float(vector),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                    Vector::Base64(STANDARD.encode(bytes))
                }
            },
        });
        let answer = Self {
            object: "list",
            data: data.collect(),
            model,
            usage: (&usage).into(),
            byzerllm: notes.clone().some(),
        };
        Ok((answer, notes))
    }
}

#[cfg(test)]
mod tests {
    use byzerllm_core::{Notice, Usage};
    use serde_json::json;

    use super::*;

    fn answer(vectors: Vec<Vec<f32>>, encoding: Encoding) -> Result<Value> {
        let usage = Usage { prompt_tokens: 5, ..Usage::default() };
        let embeddings = Embeddings { vectors, usage, notices: vec![Notice::Cached { age_seconds: 7 }] };
        let (answer, notes) = EmbeddingAnswer::new("m".to_owned(), 2, encoding, embeddings)?;
        assert!(notes.cached());
        Ok(serde_json::to_value(answer).unwrap())
    }

    #[test]
    fn vectors_are_numbers_or_their_bytes() {
        let vectors = || vec![vec![1.0, -0.5], vec![0.25, 3.0]];
        let floats = answer(vectors(), Encoding::Float).unwrap();
        assert_eq!(floats["data"][1], json!({"object": "embedding", "index": 1, "embedding": [0.25, 3.0]}));
        assert_eq!(floats["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
        assert_eq!(floats["byzerllm"]["notices"], json!([{"notice": "cached", "age_seconds": 7}]));
        let packed = answer(vectors(), Encoding::Base64).unwrap();
        assert_eq!(packed["data"][0]["embedding"], "AACAPwAAAL8=");
    }

    #[test]
    fn a_vector_too_few_or_a_number_that_is_none_is_the_models_fault() {
        for vectors in
            [vec![vec![1.0]], vec![vec![1.0], vec![f32::NAN]], vec![vec![f32::INFINITY], vec![1.0]]]
        {
            assert_eq!(answer(vectors, Encoding::Float).unwrap_err().kind(), ErrorKind::Upstream);
        }
    }
}
