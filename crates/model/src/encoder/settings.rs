//! What a checkpoint says about its use, beside the network's shape: prompts, labels, and where each value is from.

use std::collections::BTreeMap;

/// How the vectors of two texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Similarity {
    /// The cosine of their angle.
    Cosine,
    /// Their inner product.
    Dot,
    /// Their distance, negated.
    Euclidean,
    /// The sum of their differences, negated.
    Manhattan,
}

impl Similarity {
    /// Its name in configurations of sentence-transformers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        }
    }
}

/// Where a value of the settings is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This file, relative to the checkpoint, or this key of a GGUF file.
    Given(String),
    /// The family's custom, because no file says.
    Assumed(&'static str),
}

/// What a checkpoint says about its use.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSettings {
    /// Texts that come before an input, by name (`query`, `passage`).
    pub prompts: BTreeMap<String, String>,
    /// The prompt of inputs that ask for none.
    pub default_prompt: Option<String>,
    /// How vectors are meant to be compared, when a file says.
    pub similarity: Option<Similarity>,
    /// Names of a classifier's labels, in order of its logits; empty for embeddings.
    pub labels: Vec<String>,
    /// Whether the checkpoint's own files want the logits as probabilities: `Some(true)` for the logistic function,
    /// `Some(false)` for none, absent when they do not say.
    pub probabilities: Option<bool>,
    /// Where the pooling is from.
    pub pooling_origin: Origin,
    /// Where it is from whether vectors are scaled to unit length.
    pub normalize_origin: Origin,
    /// Where the longest input is from.
    pub max_length_origin: Origin,
}
