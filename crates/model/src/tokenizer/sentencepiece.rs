//! SentencePiece vocabularies: the pieces of a `tokenizer.model` or of a GGUF file, made into a tokenizer.
//!
//! Byte-pair vocabularies have scores and no merges: every way to cut a piece into two pieces is a merge, and the
//! piece's score is its rank. Text is normalized as the trainer's options say, then spaces become `▁`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Precompiled, Prepend, Replace, Sequence};
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper};

use super::added::AddedTokens;
use super::bytes::fallback_byte;
use super::table::TokenTable;
use super::{Tokenizer, TokenizerError, guarded};

/// The longest piece, in bytes.
const MAX_PIECE_BYTES: usize = 1 << 16;
/// Cuts that are tried over all pieces, weighted by the piece's length: a bound on the time to load.
const MAX_CUT_WORK: usize = 1 << 31;
/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// What a piece is for. The numbers are those of both formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl PieceKind {
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// One entry of a vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: PieceKind,
}

/// How a text is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    BytePair,
    Unigram,
}

/// A vocabulary with the options of its trainer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pieces {
    pub(crate) algorithm: Algorithm,
    pub(crate) pieces: Vec<Piece>,
    /// A space before every text.
    pub(crate) space_prefix: bool,
    /// Spaces at the ends are dropped and runs of spaces become one.
    pub(crate) squeeze_spaces: bool,
    /// SentencePiece's compiled table of replacements; empty means none.
    pub(crate) charsmap: Vec<u8>,
}

/// Names of the fields for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldNames {
    pub(crate) pieces: &'static str,
    pub(crate) charsmap: &'static str,
}

impl Pieces {
    /// Whether pieces are chosen by their scores alone, not by merging.
    pub(crate) fn is_unigram(&self) -> bool {
        self.algorithm == Algorithm::Unigram
    }

    /// Makes the tokenizer. `added` are tokens of other files, after or among the pieces.
    pub(crate) fn into_tokenizer(
        self,
        file: &Path,
        fields: FieldNames,
        added: &AddedTokens,
    ) -> Result<Tokenizer, TokenizerError> {
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: file.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let known = self.check().map_err(|reason| invalid(fields.pieces, reason))?;
        for (id, piece) in (0_u32..).zip(&self.pieces) {
            if let Some(token) = added.get(id).filter(|token| token.text != piece.text) {
                let reason =
                    format!("token {id} is {:?}, but the vocabulary has {:?}", token.text, piece.text);
                return Err(invalid("added tokens", reason));
            }
        }
        let behind = added.placed(self.pieces.len()).map_err(|(field, reason)| invalid(&field, reason))?;
        let table = self.table(added).map_err(|reason| invalid(fields.pieces, reason))?;
        if !self.charsmap.is_empty() {
            check_charsmap(&self.charsmap).map_err(|reason| invalid(fields.charsmap, reason))?;
        }
        let model = match self.algorithm {
            Algorithm::BytePair => self.byte_pair(&known),
            Algorithm::Unigram => self.unigram(),
        };
        let model = model.map_err(|reason| invalid(fields.pieces, reason))?;
        let normalizer = self.normalizer().map_err(|reason| invalid(fields.charsmap, reason))?;
        let tokenizer = guarded(|| {
            let mut tokenizer = tokenizers::Tokenizer::new(model);
            tokenizer.with_normalizer(normalizer)?;
            let mut tokens = self.found_in_text(added);
            tokens.extend(behind);
            tokenizer.add_tokens(tokens)?;
            Ok(tokenizer)
        })
        .map_err(|reason| invalid(fields.pieces, reason))?;
        let (prefix, suffix) = added.around(|text| tokenizer.token_to_id(text), file)?;
        Ok(Tokenizer::assemble(tokenizer, table, prefix, suffix))
    }

    /// Ids of the pieces' texts; every rule that later steps rely on holds after it.
    fn check(&self) -> Result<HashMap<&str, u32>, String> {
        if self.pieces.is_empty() {
            return Err("the vocabulary is empty".to_owned());
        }
        let mut known = HashMap::with_capacity(self.pieces.len());
        let mut unknown = None;
        let mut work = 0_usize;
        for (id, piece) in (0_u32..).zip(&self.pieces) {
            let length = piece.text.len();
            if length == 0 || length > MAX_PIECE_BYTES {
                return Err(format!("piece {id} has {length} bytes; 1 to {MAX_PIECE_BYTES} are allowed"));
            }
            work = work.saturating_add(length.saturating_mul(length));
            if !piece.score.is_finite() {
                return Err(format!("the score of piece {id} is {}", piece.score));
            }
            if let Some(other) = known.insert(piece.text.as_str(), id) {
                return Err(format!(
                    "piece {id} `{}` is the same as piece {other}",
                    piece.text.escape_debug()
                ));
            }
            match piece.kind {
                PieceKind::Unknown if unknown.is_some() => {
                    return Err("has two pieces for unknown text".to_owned());
                }
                PieceKind::Unknown => unknown = Some(id),
                PieceKind::Byte if fallback_byte(&piece.text).is_none() => {
                    return Err(format!("piece {id} is a byte, but not written as <0x00>"));
                }
                _ => {}
            }
        }
        if u32::try_from(self.pieces.len()).is_err() || work > MAX_CUT_WORK {
            return Err("the vocabulary is too large".to_owned());
        }
        let bytes = self.pieces.iter().filter(|piece| piece.kind == PieceKind::Byte).count();
        if bytes != 0 && bytes != 256 {
            return Err(format!("has {bytes} of the 256 byte pieces"));
        }
        Ok(known)
    }

    fn has_bytes(&self) -> bool {
        self.pieces.iter().any(|piece| piece.kind == PieceKind::Byte)
    }

    fn unknown(&self) -> Option<usize> {
        self.pieces.iter().position(|piece| piece.kind == PieceKind::Unknown)
    }

    /// Merges in order of the scores of what they make, best first; equal ones in order of their parts.
    fn byte_pair(&self, known: &HashMap<&str, u32>) -> Result<ModelWrapper, String> {
        let part = |text: &str| {
            let id = *known.get(text)?;
            (self.pieces.get(id as usize)?.kind == PieceKind::Normal).then_some(id)
        };
        let mut merges: Vec<(f32, u32, u32)> = Vec::new();
        for piece in self.pieces.iter().filter(|piece| piece.kind == PieceKind::Normal) {
            for (cut, _) in piece.text.char_indices().skip(1) {
                if let (Some(left), Some(right)) = (part(&piece.text[..cut]), part(&piece.text[cut..])) {
                    merges.push((piece.score, left, right));
                }
            }
        }
        let order = |a: &(f32, u32, u32), b: &(f32, u32, u32)| -> Ordering {
            b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        merges.sort_by(order);
        let text = |id: u32| self.pieces.get(id as usize).map(|piece| piece.text.clone()).unwrap_or_default();
        let merges: Merges = merges.iter().map(|&(_, left, right)| (text(left), text(right))).collect();
        let vocabulary: Vocab = known.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect();
        let mut builder = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .fuse_unk(true)
            .byte_fallback(self.has_bytes());
        if let Some(unknown) = self.unknown().and_then(|id| self.pieces.get(id)) {
            builder = builder.unk_token(unknown.text.clone());
        }
        Ok(ModelWrapper::BPE(guarded(|| builder.build())?))
    }

    fn unigram(&self) -> Result<ModelWrapper, String> {
        let unknown = self.unknown().ok_or_else(|| "has no piece for unknown text".to_owned())?;
        let normal = |piece: &&Piece| piece.kind == PieceKind::Normal;
        // Pieces that no text may become are made worse than any text of known pieces.
        let worst = self.pieces.iter().filter(normal).map(|piece| piece.score).fold(0.0, f32::min);
        let score = |piece: &Piece| match piece.kind {
            PieceKind::Normal | PieceKind::Unknown => f64::from(piece.score.max(worst)),
            PieceKind::UserDefined => 0.0,
            PieceKind::Control | PieceKind::Unused | PieceKind::Byte => f64::from(worst),
        };
        let vocabulary = self.pieces.iter().map(|piece| (piece.text.clone(), score(piece))).collect();
        let bytes = self.has_bytes();
        Ok(ModelWrapper::Unigram(guarded(|| Unigram::from(vocabulary, Some(unknown), bytes))?))
    }

    fn normalizer(&self) -> Result<Option<NormalizerWrapper>, String> {
        guarded(|| {
            let mut steps = Vec::new();
            if !self.charsmap.is_empty() {
                let map = Precompiled::from(&self.charsmap).map_err(|_| "is no table of replacements")?;
                steps.push(NormalizerWrapper::Precompiled(map));
            }
            let mut replace = |pattern: ReplacePattern, text: &str| -> tokenizers::Result<()> {
                steps.push(NormalizerWrapper::Replace(Replace::new(pattern, text)?));
                Ok(())
            };
            if self.squeeze_spaces {
                replace(ReplacePattern::Regex("^ +| +$".to_owned()), "")?;
                replace(ReplacePattern::Regex(" {2,}".to_owned()), " ")?;
            }
            replace(ReplacePattern::String(" ".to_owned()), SPACE)?;
            if self.space_prefix {
                steps.push(NormalizerWrapper::Prepend(Prepend::new(SPACE.to_owned())));
            }
            Ok(Some(NormalizerWrapper::Sequence(Sequence::new(steps))))
        })
    }

    /// Pieces that are found in a text before it is normalized.
    fn found_in_text(&self, added: &AddedTokens) -> Vec<AddedToken> {
        let mut tokens = Vec::new();
        for (id, piece) in (0_u32..).zip(&self.pieces) {
            let special = match piece.kind {
                PieceKind::Control | PieceKind::Unknown => true,
                PieceKind::UserDefined | PieceKind::Normal if is_reserved(&piece.text) => true,
                PieceKind::UserDefined => added.get(id).is_some_and(|token| token.special),
                _ => match added.get(id) {
                    Some(token) => token.special,
                    None => continue,
                },
            };
            tokens.push(AddedToken::from(piece.text.as_str(), special).normalized(false));
        }
        tokens
    }

    fn table(&self, added: &AddedTokens) -> Result<TokenTable, String> {
        let mut table = TokenTable::default();
        table.leading_spaces = usize::from(self.space_prefix);
        let too_large = |_| "more than 4 GiB of text".to_owned();
        for (id, piece) in (0_u32..).zip(&self.pieces) {
            let special = matches!(piece.kind, PieceKind::Control | PieceKind::Unknown)
                || is_reserved(&piece.text)
                || added.get(id).is_some_and(|token| token.special);
            table
                .push(&piece.text, special, |text, out| match (piece.kind, fallback_byte(text)) {
                    (PieceKind::Byte, Some(byte)) => out.push(byte),
                    (PieceKind::Control | PieceKind::Unknown, _) => out.extend_from_slice(text.as_bytes()),
                    _ => out.extend_from_slice(text.replace(SPACE, " ").as_bytes()),
                })
                .map_err(too_large)?;
        }
        added.extend_table(self.pieces.len(), &mut table).map_err(too_large)?;
        Ok(table)
    }
}

/// Whether a piece is one of Baichuan's `<reserved_N>`, which mark the turns of a conversation there. Its files call
/// them pieces like others, so that only the name tells.
fn is_reserved(text: &str) -> bool {
    let number = text.strip_prefix("<reserved_").and_then(|rest| rest.strip_suffix('>'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The parser of the table allocates what its first number says.
fn check_charsmap(map: &[u8]) -> Result<(), String> {
    let (length, rest) = map.split_first_chunk::<4>().ok_or("is shorter than its length")?;
    let length = u32::from_le_bytes(*length) as usize;
    // The first cell is the root of the table.
    if length > rest.len() || length < 4 || !length.is_multiple_of(4) {
        return Err(format!("says {length} bytes and has {}", rest.len()));
    }
    Ok(())
}
