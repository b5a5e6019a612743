//! What a checkpoint says about its use, beside the network's shape: prompts, labels, and where each value is from.

use std::collections::BTreeMap;
use std::fmt;

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

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan]
            .into_iter()
            .find(|one| one.as_str() == name)
    }
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This file of the checkpoint, or this key of a GGUF file.
    Given(String),
    /// No file says; the reason for the choice.
    Assumed(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(place) => f.write_str(place),
            Self::Assumed(why) => write!(f, "assumed: {why}"),
        }
    }
}

/// What a checkpoint says about its use.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSettings {
    /// Texts that come before an input, by name (`query`, `passage`).
    pub prompts: BTreeMap<String, String>,
    /// The prompt of inputs that ask for none.
    pub default_prompt: Option<String>,
    /// Whether texts become lower case before the tokenizer sees them.
    pub lowercase: bool,
    /// How vectors are meant to be compared, when a file says.
    pub similarity: Option<Similarity>,
    /// Names of a classifier's labels, in order of its logits; empty for embeddings.
    pub labels: Vec<String>,
    /// Whether the checkpoint's files turn logits into probabilities by the logistic function: absent when they do
    /// not say. Rows of the network are logits in any case.
    pub probabilities: Option<bool>,
    /// Where the pooling is from.
    pub pooling_origin: Origin,
    /// Where it is from whether vectors are scaled to unit length.
    pub normalize_origin: Origin,
    /// Where the longest input is from.
    pub max_length_origin: Origin,
}
