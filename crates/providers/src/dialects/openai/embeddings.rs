//! Vectors for texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use byzerllm_core::{
    EmbeddingInput, EmbeddingRequest, Embeddings, Error, ErrorKind, Result, Usage, UsageSource,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Quirks, error};

/// How a vendor's embeddings differ from OpenAI's.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingQuirks {
    /// The path below the base URL.
    pub path: &'static str,
    /// Whether `dimensions` is taken.
    pub dimensions: bool,
    /// Whether the vendor sends vectors in base64, a quarter of the bytes of decimal numbers.
    pub base64: bool,
    /// Whether token ids are taken in place of texts.
    pub tokens: bool,
    /// The most inputs of one request.
    pub batch: usize,
    /// The names of [`EmbeddingRequest::extra`].
    pub extra: &'static [&'static str],
}

impl EmbeddingQuirks {
    /// OpenAI itself.
    pub const OPENAI: Self = Self {
        path: "embeddings",
        dimensions: true,
        base64: true,
        tokens: true,
        batch: 2048,
        extra: &["user"],
    };
}

/// Writes a request.
pub(super) fn encode(
    vendor: &'static str,
    quirks: &EmbeddingQuirks,
    model: &str,
    request: &EmbeddingRequest,
) -> Result<Vec<u8>> {
    let refuse = |name: String| {
        let message = format!("{vendor} takes no '{name}' for embeddings; leave it out");
        Error::new(ErrorKind::Unsupported, message).with_param(name)
    };
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in &request.inputs {
        inputs.push(match input {
            EmbeddingInput::Text(text) => json!(text),
            EmbeddingInput::Tokens(ids) if quirks.tokens => json!(ids),
            EmbeddingInput::Tokens(_) => {
                let message = format!("{vendor} embeds texts only, no token ids");
                return Err(Error::new(ErrorKind::Unsupported, message).with_param("input"));
            }
        });
    }
    body.insert("input".to_owned(), Value::Array(inputs));
    if quirks.base64 {
        body.insert("encoding_format".to_owned(), json!("base64"));
    }
    if let Some(dimensions) = request.dimensions {
        if !quirks.dimensions {
            return Err(refuse("dimensions".to_owned()));
        }
        body.insert("dimensions".to_owned(), json!(dimensions));
    }
    for (name, value) in &request.extra {
        if !quirks.extra.contains(&name.as_str()) {
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            return Err(refuse(shown));
        }
        body.insert(name.clone(), value.clone());
    }
    serde_json::to_vec(&body)
        .map_err(|error| Error::internal("a request cannot be written as JSON").with_source(error))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Vec<Row>>,
    #[serde(default)]
    usage: Option<super::chunk::WireUsage>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vector,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Base64(String),
    Numbers(Vec<f32>),
}

/// Reads an answer. Rows come in any order and are put into that of the inputs by their index.
pub(super) fn decode(quirks: &Quirks, body: &[u8]) -> Result<Embeddings> {
    let vendor = quirks.vendor;
    let wrong =
        |what: &str| Error::new(ErrorKind::Upstream, format!("{vendor} sent vectors {what}; try again"));
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| wrong("that cannot be read").with_source(error))?;
    let Some(mut rows) = answer.data else {
        return Err(error::inside(vendor, quirks.codes, body).unwrap_or_else(|| wrong("without `data`")));
    };
    for (place, row) in rows.iter_mut().enumerate() {
        row.index.get_or_insert(place);
    }
    rows.sort_by_key(|row| row.index);
    if rows.iter().enumerate().any(|(place, row)| row.index != Some(place)) {
        return Err(wrong("with a gap or a repetition in their indices"));
    }
    let vectors = rows.into_iter().map(|row| match row.embedding {
        Vector::Numbers(numbers) => Ok(numbers),
        Vector::Base64(text) => {
            let bytes =
                STANDARD.decode(text).map_err(|error| wrong("in broken base64").with_source(error))?;
            let (numbers, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(wrong("of a broken length"));
            }
            Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
    });
    let vectors: Vec<Vec<f32>> = vectors.collect::<Result<_>>()?;
    if vectors.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
        return Err(wrong("of different lengths"));
    }
    if vectors.iter().flatten().any(|number| !number.is_finite()) {
        return Err(wrong("that hold no numbers"));
    }
    let usage = answer.usage.and_then(|usage| usage.read(false));
    let usage = usage.unwrap_or(Usage { source: UsageSource::Unknown, ..Usage::default() });
    Ok(Embeddings { vectors, usage, notices: Vec::new() })
}
