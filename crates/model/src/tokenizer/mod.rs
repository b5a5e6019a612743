//! Text to token ids and back, from a Hugging Face `tokenizer.json`, a GGUF vocabulary, SentencePiece's
//! `tokenizer.model`, `vocab.json` with `merges.txt`, or a `tiktoken` file.
//!
//! Encoding is the `tokenizers` crate's. Decoding is ours: a table made at load holds the bytes that each id stands
//! for, so that a token's bytes cost one lookup and a stream never decodes a token twice.

pub(crate) mod added;
mod bytes;
mod fairseq;
mod gguf;
pub(crate) mod glm;
mod json;
#[cfg(test)]
mod llama_vectors;
mod merge_lines;
pub(crate) mod pre;
pub(crate) mod protobuf;
pub(crate) mod rank_lines;
mod reading;
pub(crate) mod segments;
mod sentencepiece;
mod stream;
mod table;
pub(crate) mod wordpiece;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind};
use serde_json::json;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::AddedVocabulary;
use tokenizers::{Model, OffsetType, PreTokenizer};

pub use gguf::GgufVocabulary;
use reading::{Part, Reading};
pub(crate) use sentencepiece::PieceKind;
pub use stream::StreamDecoder;
use table::TokenTable;

/// Why a tokenizer could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not what it claims to be.
    #[error("{}: {field}: {reason}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The part of the file at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is well formed, but this build cannot run it.
    #[error("{}: {field} `{value}` is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The part of the file at fault.
        field: String,
        /// What it asks for.
        value: String,
        /// What could be asked for.
        supported: String,
    },
    /// A text could not be encoded.
    #[error("the text could not be tokenized: {0}")]
    Encode(String),
}

impl From<TokenizerError> for Error {
    fn from(error: TokenizerError) -> Self {
        let kind = match error {
            TokenizerError::Unsupported { .. } => ErrorKind::Unsupported,
            TokenizerError::Invalid { .. } | TokenizerError::Encode(_) => ErrorKind::InvalidRequest,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}

/// A model's tokenizer. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// The added tokens with the special ones switched off, for text that must not contain control tokens.
    plain: AddedVocabulary,
    table: Arc<TokenTable>,
    /// Tokens around an encoded text. Empty when the `tokenizers` crate's own post-processor adds them.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// What is done to texts before the model sees them.
    reading: Option<Reading>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    fn assemble(
        tokenizer: tokenizers::Tokenizer,
        table: TokenTable,
        prefix: Vec<u32>,
        suffix: Vec<u32>,
    ) -> Self {
        let mut plain = tokenizer.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        Self {
            inner: Arc::new(Inner {
                tokenizer,
                plain,
                table: Arc::new(table),
                prefix,
                suffix,
                reading: None,
            }),
        }
    }

    /// Sets the tokens around an encoded text.
    fn surround(&mut self, prefix: Vec<u32>, suffix: Vec<u32>) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.prefix = prefix;
            inner.suffix = suffix;
        }
    }

    /// Sets how one text or two are put among special tokens.
    fn join(&mut self, processor: tokenizers::PostProcessorWrapper) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.tokenizer.with_post_processor(Some(processor));
        }
    }

    /// The tokenizer as a `tokenizer.json`: with a decoder, and with the tokens around a text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when it cannot be written.
    pub(crate) fn to_json(&self) -> Result<serde_json::Value, TokenizerError> {
        let failed = |error: serde_json::Error| TokenizerError::Encode(error.to_string());
        let mut json = serde_json::to_value(&self.inner.tokenizer).map_err(failed)?;
        let byte_level = json["model"]["type"] == "BPE" && json["model"]["byte_fallback"] != true;
        if json["decoder"].is_null() && byte_level {
            let decoder = ByteLevel::new(false, true, true);
            json["decoder"] = serde_json::to_value(DecoderWrapper::ByteLevel(decoder)).map_err(failed)?;
        }
        if json["decoder"].is_null() && !byte_level {
            json["decoder"] = json!({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]});
        }
        let around = [&self.inner.prefix, &self.inner.suffix];
        if json["post_processor"].is_null() && around.iter().any(|ids| !ids.is_empty()) {
            json["post_processor"] = self.template(around);
        }
        Ok(json)
    }

    /// What puts tokens before and behind a text, in the words of `tokenizer.json`.
    fn template(&self, [prefix, suffix]: [&Vec<u32>; 2]) -> serde_json::Value {
        let special =
            |id: &u32| json!({"SpecialToken": {"id": self.token(*id).unwrap_or_default(), "type_id": 0}});
        let around = |name: &str| -> Vec<serde_json::Value> {
            let text = json!({"Sequence": {"id": name, "type_id": 0}});
            prefix.iter().map(special).chain([text]).chain(suffix.iter().map(special)).collect()
        };
        let tokens = prefix.iter().chain(suffix).map(|id| {
            let text = self.token(*id).unwrap_or_default();
            (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}))
        });
        let tokens: serde_json::Map<String, serde_json::Value> = tokens.collect();
        let pair: Vec<_> = around("A").into_iter().chain(around("B")).collect();
        json!({"type": "TemplateProcessing", "single": around("A"), "pair": pair, "special_tokens": tokens})
    }

    /// The highest id plus one.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.table.len()
    }

    /// Turns text into ids. Special tokens in the text are parsed as such. `add_special` adds the tokens that the
    /// model's tokenizer puts around a text, if it puts any.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the vocabulary has no way to write the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let (prefix, suffix) =
            if add_special { (&self.inner.prefix[..], &self.inner.suffix[..]) } else { (&[][..], &[][..]) };
        if let Some(reading) = &self.inner.reading {
            let mut ids = prefix.to_vec();
            for part in reading.split(text) {
                match part {
                    Part::Text(text) => ids.extend(self.encode_plain(text)?),
                    Part::Special(id) => ids.push(id),
                }
            }
            ids.extend(suffix);
            return Ok(ids);
        }
        let encoding = guarded(|| self.inner.tokenizer.encode_fast(text, add_special))
            .map_err(TokenizerError::Encode)?;
        Ok([prefix, encoding.get_ids(), suffix].concat())
    }

    /// Turns text into ids, special tokens in the text taken literally: for text of strangers. Nothing is added.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the vocabulary has no way to write the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let rewritten = self.inner.reading.as_ref().map(|reading| reading.rewrite(text));
        let text = rewritten.as_deref().unwrap_or(text);
        let encoding = guarded(|| {
            let tokenizer = &self.inner.tokenizer;
            let mut pieces = self.inner.plain.extract_and_normalize(tokenizer.get_normalizer(), text);
            if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| tokenizer.get_model().tokenize(piece.get()))?;
            pieces.into_encoding(None, 0, OffsetType::None)
        })
        .map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The raw bytes that a token stands for; a special token stands for its text.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.inner.table.bytes(id)
    }

    /// Whether the token is a control token, left out of shown text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.table.is_special(id)
    }

    /// The id of a token, written as the vocabulary writes it.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        let own = self.inner.reading.as_ref().and_then(|reading| reading.id(token));
        own.or_else(|| self.inner.tokenizer.token_to_id(token))
    }

    /// The token as the vocabulary writes it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<&str> {
        self.inner.table.text(id)
    }

    /// The text of all ids. Bytes that are no UTF-8 become U+FFFD; an id outside the vocabulary stands for nothing.
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let table = &self.inner.table;
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            if !(skip_special && table.is_special(id)) {
                bytes.extend_from_slice(table.bytes(id).unwrap_or_default());
            }
        }
        let spaces = bytes.iter().take(table.leading_spaces).take_while(|byte| **byte == b' ').count();
        String::from_utf8_lossy(bytes.get(spaces..).unwrap_or_default()).into_owned()
    }

    /// A decoder for one sequence, token by token.
    #[must_use]
    pub fn decoder(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder::new(Arc::clone(&self.inner.table), skip_special)
    }
}

/// Runs the `tokenizers` crate. It indexes unchecked in places that a hostile file can reach, so that a panic of it
/// is an error of the file or the text, not of the process.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the vocabulary is inconsistent".to_owned()),
    }
}
