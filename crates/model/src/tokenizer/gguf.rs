//! Vocabularies stored in GGUF files: byte-level BPE built straight from tokens and merges, and SentencePiece's.
//!
//! The names of pre-tokenizers are llama.cpp's; the steps behind each name are those of the model's own
//! `tokenizer.json`.

use std::fmt::Display;
use std::path::PathBuf;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::{AddedToken, NormalizerWrapper};

use super::added::AddedTokens;
use super::bytes::{byte_level_bytes, fallback_byte};
use super::pre::{self, Steps};
use super::sentencepiece::{Algorithm, FieldNames, Piece, PieceKind, Pieces};
use super::table::TokenTable;
use super::{Tokenizer, TokenizerError, guarded};

/// A vocabulary as a GGUF file stores it (`tokenizer.ggml.*`), as plain data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// The kind of tokenizer, `tokenizer.ggml.model` (`gpt2` is byte-level BPE, `llama` and `t5` are SentencePiece).
    pub model: String,
    /// The way text is cut before merging, `tokenizer.ggml.pre`; empty when the file has none.
    pub pre: String,
    /// Token texts by id.
    pub tokens: Vec<String>,
    /// Token types by id (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte); may be empty.
    pub token_types: Vec<i32>,
    /// Token scores by id, for SentencePiece.
    pub scores: Vec<f32>,
    /// Merges, best first, as `left right`.
    pub merges: Vec<String>,
    /// The token before a sequence.
    pub bos: Option<u32>,
    /// The token after a sequence.
    pub eos: Option<u32>,
    /// The token for what is not in the vocabulary.
    pub unk: Option<u32>,
    /// The token that fills batches.
    pub pad: Option<u32>,
    /// Whether the beginning-of-sequence token is added; absent means the pre-tokenizer's custom.
    pub add_bos: Option<bool>,
    /// Whether the end-of-sequence token is added; absent means no.
    pub add_eos: Option<bool>,
    /// SentencePiece: whether a space comes before every text; absent means yes.
    pub add_space_prefix: Option<bool>,
    /// SentencePiece: whether spaces at the ends are dropped and runs of spaces become one; absent means no.
    pub remove_extra_whitespaces: Option<bool>,
    /// SentencePiece: the compiled table of replacements; empty means none.
    pub precompiled_charsmap: Vec<u8>,
    /// The file, for error messages.
    pub file: PathBuf,
}

/// Token types of the format.
pub(super) const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// The longest token, in bytes. Real ones stay below 1,000.
const MAX_TOKEN_BYTES: usize = 1 << 16;

impl Tokenizer {
    /// Makes a tokenizer from the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError::Unsupported`] naming the model or the pre-tokenizer, [`TokenizerError::Invalid`] naming the
    /// field that contradicts another.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Self, TokenizerError> {
        match vocabulary.model.as_str() {
            "gpt2" => Self::byte_level(vocabulary, |steps| steps),
            "llama" => Self::pieces(vocabulary, Algorithm::BytePair),
            "t5" => Self::pieces(vocabulary, Algorithm::Unigram),
            other => Err(vocabulary.unsupported("tokenizer.ggml.model", other, "gpt2, llama, t5")),
        }
    }

    /// A SentencePiece vocabulary.
    fn pieces(vocabulary: GgufVocabulary, algorithm: Algorithm) -> Result<Self, TokenizerError> {
        vocabulary.check()?;
        let unigram = algorithm == Algorithm::Unigram;
        let (prefix, suffix) = vocabulary.added((!unigram, unigram))?;
        let file = vocabulary.file.clone();
        let fields =
            FieldNames { pieces: "tokenizer.ggml.tokens", charsmap: "tokenizer.ggml.precompiled_charsmap" };
        let mut tokenizer =
            vocabulary.into_pieces(algorithm)?.into_tokenizer(&file, fields, &AddedTokens::default())?;
        tokenizer.surround(prefix, suffix);
        Ok(tokenizer)
    }

    /// A byte-level vocabulary; `change` may change the steps behind its pre-tokenizer's name.
    pub(super) fn byte_level(
        vocabulary: GgufVocabulary,
        change: impl Fn(Steps) -> Steps,
    ) -> Result<Self, TokenizerError> {
        let steps = pre::steps(&vocabulary.pre).map(change).ok_or_else(|| {
            vocabulary.unsupported("tokenizer.ggml.pre", &vocabulary.pre, &pre::NAMES.join(", "))
        })?;
        vocabulary.check()?;
        let table = vocabulary.table()?;
        let (prefix, suffix) = vocabulary.added((steps.adds_bos, false))?;
        let special: Vec<AddedToken> = vocabulary.added_tokens();
        let file = vocabulary.file.clone();
        let bpe = vocabulary.into_bpe(&steps)?;
        let tokenizer = guarded(|| {
            let mut tokenizer = tokenizers::Tokenizer::new(bpe);
            if steps.nfc {
                tokenizer.with_normalizer(Some(NormalizerWrapper::NFC(NFC)))?;
            }
            tokenizer.with_pre_tokenizer(Some(steps.pre_tokenizer()?));
            tokenizer.add_tokens(special)?;
            Ok(tokenizer)
        })
        .map_err(|error| invalid(&file, "tokenizer.ggml.tokens", error))?;
        Ok(Self::assemble(tokenizer, table, prefix, suffix))
    }
}

fn invalid(file: &std::path::Path, field: &str, reason: impl Display) -> TokenizerError {
    TokenizerError::Invalid { file: file.to_owned(), field: field.to_owned(), reason: reason.to_string() }
}

impl GgufVocabulary {
    fn invalid(&self, field: &str, reason: impl Display) -> TokenizerError {
        invalid(&self.file, field, reason)
    }

    fn unsupported(&self, field: &str, value: &str, supported: &str) -> TokenizerError {
        TokenizerError::Unsupported {
            file: self.file.clone(),
            field: field.to_owned(),
            value: value.to_owned(),
            supported: supported.to_owned(),
        }
    }

    /// Whether the fields agree with each other.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        let count = self.tokens.len();
        if count == 0 {
            return Err(self.invalid("tokenizer.ggml.tokens", "the vocabulary is empty"));
        }
        if u32::try_from(count).is_err() {
            return Err(
                self.invalid("tokenizer.ggml.tokens", format!("{count} tokens are more than ids exist"))
            );
        }
        let types = self.token_types.len();
        if types != 0 && types != count {
            return Err(
                self.invalid("tokenizer.ggml.token_type", format!("{types} types for {count} tokens"))
            );
        }
        if let Some(id) =
            self.tokens.iter().position(|token| token.is_empty() || token.len() > MAX_TOKEN_BYTES)
        {
            let length = self.tokens.get(id).map_or(0, String::len);
            let reason = format!("token {id} has {length} bytes; 1 to {MAX_TOKEN_BYTES} are allowed");
            return Err(self.invalid("tokenizer.ggml.tokens", reason));
        }
        for (name, id) in [("bos", self.bos), ("eos", self.eos), ("unknown", self.unk), ("padding", self.pad)]
        {
            if let Some(id) = id.filter(|id| *id as usize >= count) {
                let field = format!("tokenizer.ggml.{name}_token_id");
                return Err(
                    self.invalid(&field, format!("id {id} is outside the vocabulary of {count} tokens"))
                );
            }
        }
        Ok(())
    }

    /// The type of a token. Without types in the file, the named special tokens are the control tokens.
    fn kind(&self, id: usize) -> i32 {
        if self.token_types.is_empty() {
            let named = [self.bos, self.eos, self.unk, self.pad];
            return if named.iter().flatten().any(|special| *special as usize == id) { CONTROL } else { 1 };
        }
        self.token_types.get(id).copied().unwrap_or(1)
    }

    pub(super) fn is_special(&self, id: usize) -> bool {
        matches!(self.kind(id), CONTROL | UNKNOWN)
    }

    fn table(&self) -> Result<TokenTable, TokenizerError> {
        let mut table = TokenTable::default();
        for (id, token) in self.tokens.iter().enumerate() {
            table
                .push(token, self.is_special(id), |text, out| match self.kind(id) {
                    CONTROL | UNKNOWN | USER_DEFINED => out.extend_from_slice(text.as_bytes()),
                    BYTE if fallback_byte(text).is_some() => out.extend(fallback_byte(text)),
                    _ => byte_level_bytes(text, out),
                })
                .map_err(|_| self.invalid("tokenizer.ggml.tokens", "more than 4 GiB of text"))?;
        }
        Ok(table)
    }

    /// The tokens that are found in a text before it is cut into words.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let texts = self.tokens.iter().enumerate();
        texts
            .filter(|(id, _)| self.is_special(*id) || self.kind(*id) == USER_DEFINED)
            .map(|(id, text)| AddedToken::from(text.as_str(), self.is_special(id)).normalized(false))
            .collect()
    }

    /// The tokens before and after an encoded text; `custom` says which ones there are when the file does not.
    fn added(&self, custom: (bool, bool)) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let pick = |wanted: bool, id: Option<u32>, name: &str| match (wanted, id) {
            (false, _) => Ok(Vec::new()),
            (true, Some(id)) => Ok(vec![id]),
            (true, None) => {
                let field = format!("tokenizer.ggml.add_{name}_token");
                Err(self.invalid(&field, format!("is set, but tokenizer.ggml.{name}_token_id is missing")))
            }
        };
        let bos = self.add_bos.unwrap_or(custom.0 && self.bos.is_some());
        let eos = self.add_eos.unwrap_or(custom.1 && self.eos.is_some());
        Ok((pick(bos, self.bos, "bos")?, pick(eos, self.eos, "eos")?))
    }

    fn into_pieces(self, algorithm: Algorithm) -> Result<Pieces, TokenizerError> {
        if self.scores.len() != self.tokens.len() {
            let reason = format!("{} scores for {} tokens", self.scores.len(), self.tokens.len());
            return Err(self.invalid("tokenizer.ggml.scores", reason));
        }
        let mut kinds = Vec::with_capacity(self.tokens.len());
        for (id, text) in self.tokens.iter().enumerate() {
            let kind = match self.kind(id) {
                // Files without types: the bytes are known by their texts, the rest by the named tokens.
                _ if self.token_types.is_empty() && fallback_byte(text).is_some() => PieceKind::Byte,
                _ if self.token_types.is_empty() && self.unk.is_some_and(|unk| unk as usize == id) => {
                    PieceKind::Unknown
                }
                // Converters of the first Phi-3 files marked rows without a token so.
                UNKNOWN if self.unk.is_some_and(|unk| unk as usize != id) => PieceKind::Unused,
                number => u64::try_from(number).ok().and_then(PieceKind::from_number).ok_or_else(|| {
                    self.invalid("tokenizer.ggml.token_type", format!("token {id} has {number}"))
                })?,
            };
            kinds.push(kind);
        }
        let pieces = self.tokens.into_iter().zip(self.scores).zip(kinds);
        Ok(Pieces {
            algorithm,
            pieces: pieces.map(|((text, score), kind)| Piece { text, score, kind }).collect(),
            space_prefix: self.add_space_prefix.unwrap_or(true),
            squeeze_spaces: self.remove_extra_whitespaces.unwrap_or(false),
            charsmap: self.precompiled_charsmap,
        })
    }

    fn into_bpe(self, steps: &Steps) -> Result<BPE, TokenizerError> {
        let count = self.tokens.len();
        let longest = self.tokens.iter().map(String::len).max().unwrap_or(0);
        let mut merges = Merges::with_capacity(self.merges.len());
        for (rank, merge) in self.merges.iter().enumerate() {
            // The left part is never empty, and may itself begin with a space in old files.
            let border = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
            let parts = border.map(|(border, _)| (&merge[..border], &merge[border + 1..]));
            match parts {
                Some((left, right)) if !right.is_empty() && left.len() + right.len() <= longest => {
                    merges.push((left.to_owned(), right.to_owned()));
                }
                _ => {
                    let reason = format!("merge {rank} `{merge}` does not make a token of the vocabulary");
                    return Err(self.invalid("tokenizer.ggml.merges", reason));
                }
            }
        }
        let file = self.file;
        let mut vocabulary = Vocab::with_capacity(count);
        for (id, token) in (0u32..).zip(self.tokens) {
            if let Some(earlier) = vocabulary.get(&token) {
                let reason = format!("token {id} `{token}` is the same as token {earlier}");
                return Err(invalid(&file, "tokenizer.ggml.tokens", reason));
            }
            vocabulary.insert(token, id);
        }
        let builder = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(steps.ignore_merges);
        guarded(|| builder.build()).map_err(|error| invalid(&file, "tokenizer.ggml.merges", error))
    }
}
