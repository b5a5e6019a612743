//! From the texts of a request to the ids that the network reads, with what was cut.

use std::sync::{Arc, Weak};
use std::time::Instant;

use byzerllm_core::{EmbeddingInput, EmbeddingRequest, Error, ErrorKind, Notice, Result, TextPair, Usage};
use byzerllm_model::encoder::{EncodedInput, EncoderTokenizer};

use super::queue::Sequence;
use crate::error::EngineError;

/// What is to be tokenized.
#[derive(Debug)]
pub(super) enum Texts {
    Inputs { inputs: Vec<EmbeddingInput>, prompt: Option<String> },
    Pairs(Vec<TextPair>),
}

impl Texts {
    pub(super) fn of(request: &mut EmbeddingRequest) -> Self {
        Self::Inputs { inputs: std::mem::take(&mut request.inputs), prompt: request.prompt.take() }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Inputs { inputs, .. } => inputs.len(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }

    /// Bytes of text, which decide where the work is done.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Inputs { inputs, .. } => inputs
                .iter()
                .map(|input| match input {
                    EmbeddingInput::Text(text) => text.len(),
                    EmbeddingInput::Tokens(ids) => ids.len(),
                })
                .sum(),
            Self::Pairs(pairs) => pairs.iter().map(|pair| pair.query.len() + pair.passage.len()).sum(),
        }
    }

    fn encode(&self, tokenizer: &EncoderTokenizer, place: usize) -> Result<EncodedInput> {
        match self {
            Self::Inputs { inputs, prompt } => match &inputs[place] {
                EmbeddingInput::Text(text) => tokenizer.text(text, prompt.as_deref()),
                EmbeddingInput::Tokens(ids) => tokenizer.tokens(ids),
            },
            Self::Pairs(pairs) => tokenizer.pair(&pairs[place].query, &pairs[place].passage),
        }
    }

    /// The field of the request that holds an input.
    fn field(&self, place: usize) -> String {
        match self {
            Self::Inputs { inputs, .. } if inputs.len() == 1 => "input".to_owned(),
            Self::Inputs { .. } => format!("input[{place}]"),
            Self::Pairs(_) => format!("documents[{place}]"),
        }
    }
}

/// How long inputs may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    /// Tokens at most, special ones included.
    pub(super) limit: usize,
    /// Whether what is longer is cut.
    pub(super) truncate: bool,
}

/// What the network computes for a request.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) sequences: Vec<Sequence>,
    pub(super) usage: Usage,
    pub(super) notices: Vec<Notice>,
}

/// Tokenizes all texts, or says which one is at fault. Stops when nobody waits any more or the time is over.
pub(super) fn prepare(
    texts: &Texts,
    tokenizer: &EncoderTokenizer,
    length: Length,
    deadline: Option<Instant>,
    waiting: &Weak<()>,
) -> Result<Prepared> {
    let several = texts.len() > 1;
    let mut sequences = Vec::with_capacity(texts.len());
    let (mut tokens, mut notices) = (0usize, Vec::new());
    for place in 0..texts.len() {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(EngineError::Late.into());
        }
        if waiting.strong_count() == 0 {
            return Err(Error::new(ErrorKind::Cancelled, "the caller has left"));
        }
        let mut encoded = texts.encode(tokenizer, place).map_err(|error| named(error, texts, place))?;
        if encoded.ids.len() > length.limit {
            if !length.truncate {
                return Err(too_long(texts, place, encoded.ids.len(), length.limit));
            }
            let from = encoded.ids.len();
            encoded.truncate(length.limit).map_err(|error| named(error, texts, place))?;
            let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let input = several.then(|| number(place));
            notices.push(Notice::Truncated { input, from: number(from), to: number(encoded.ids.len()) });
        }
        if encoded.ids.is_empty() {
            let field = texts.field(place);
            return Err(Error::invalid(field.clone(), format!("`{field}` has no tokens and so no vector")));
        }
        tokens += encoded.ids.len();
        sequences.push(Sequence { ids: encoded.ids, types: encoded.types });
    }
    let prompt_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    Ok(Prepared { sequences, usage: Usage { prompt_tokens, ..Usage::default() }, notices })
}

/// Whether the caller of [`prepare`] still waits: it holds the other end.
pub(super) fn presence() -> (Arc<()>, Weak<()>) {
    let present = Arc::new(());
    let seen = Arc::downgrade(&present);
    (present, seen)
}

fn too_long(texts: &Texts, place: usize, tokens: usize, limit: usize) -> Error {
    let field = texts.field(place);
    let message = match texts {
        Texts::Inputs { .. } => format!(
            "`{field}` has {tokens} tokens, and the model reads at most {limit}; shorten it, or send `truncate: true` \
             to have it cut"
        ),
        Texts::Pairs(_) => format!(
            "the query and `{field}` have {tokens} tokens together, and the model reads at most {limit}; shorten them, \
             or send `truncate: true` to have the longer one cut"
        ),
    };
    Error::invalid(field, message)
}

/// The same error with the input that it is about, where it names no field of its own.
fn named(error: Error, texts: &Texts, place: usize) -> Error {
    if error.param().is_some() || error.kind() != ErrorKind::InvalidRequest {
        return error;
    }
    let field = texts.field(place);
    Error::invalid(field.clone(), format!("`{field}`: {}", error.message()))
}
