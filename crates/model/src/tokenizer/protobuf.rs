//! `tokenizer.model`: SentencePiece's protocol buffer, read field by field. Nothing is copied before it was checked.

use std::path::Path;

use super::added::AddedTokens;
use super::sentencepiece::{Algorithm, FieldNames, Piece, PieceKind, Pieces};
use super::{Tokenizer, TokenizerError};
use crate::wire::{Fields, Wire};

/// More pieces than any vocabulary has.
const MAX_PIECES: usize = 4 << 20;

/// What the trainer's part says.
#[derive(Debug, Default)]
struct Trainer {
    model: Option<u64>,
    spaces_behind: bool,
}

/// What the normalizer's part says; all of it is on when it is left out.
#[derive(Debug)]
struct Normalizer {
    charsmap: Vec<u8>,
    space_prefix: bool,
    squeeze_spaces: bool,
    escape_spaces: bool,
}

/// Whether the bytes begin like such a file: with a piece.
pub(crate) fn recognizes(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x0a)
}

/// Why a file is refused.
enum Refusal {
    Invalid(&'static str, String),
    Unsupported(&'static str, String, &'static str),
}

impl Tokenizer {
    /// Makes a tokenizer from the bytes of a `tokenizer.model` of SentencePiece.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] when it is no such file or contradicts itself, [`TokenizerError::Unsupported`]
    /// naming the option.
    pub fn from_sentencepiece(path_for_errors: &Path, bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::sentencepiece_with(path_for_errors, bytes, &AddedTokens::default())
    }

    /// The same with the tokens that other files add.
    pub(crate) fn sentencepiece_with(
        path: &Path,
        bytes: &[u8],
        added: &AddedTokens,
    ) -> Result<Self, TokenizerError> {
        read_model(path, bytes)?.into_tokenizer(path, FIELDS, added)
    }
}

/// The names of the file's fields.
pub(super) const FIELDS: FieldNames =
    FieldNames { pieces: "pieces", charsmap: "normalizer_spec.precompiled_charsmap" };

/// Reads a model's pieces and options.
pub(crate) fn read_model(path: &Path, bytes: &[u8]) -> Result<Pieces, TokenizerError> {
    read(bytes).map_err(|refusal| match refusal {
        Refusal::Invalid(field, reason) => {
            TokenizerError::Invalid { file: path.to_owned(), field: field.to_owned(), reason }
        }
        Refusal::Unsupported(field, value, supported) => TokenizerError::Unsupported {
            file: path.to_owned(),
            field: field.to_owned(),
            value,
            supported: supported.to_owned(),
        },
    })
}

fn read(bytes: &[u8]) -> Result<Pieces, Refusal> {
    let file = |reason: String| Refusal::Invalid("file", reason);
    let mut pieces = Vec::new();
    let mut trainer = Trainer::default();
    let mut normalizer =
        Normalizer { charsmap: Vec::new(), space_prefix: true, squeeze_spaces: true, escape_spaces: true };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(file)? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => {
                if pieces.len() == MAX_PIECES {
                    return Err(Refusal::Invalid("pieces", format!("are more than {MAX_PIECES}")));
                }
                let id = pieces.len();
                let piece = read_piece(bytes);
                pieces.push(
                    piece.map_err(|reason| Refusal::Invalid("pieces", format!("piece {id} {reason}")))?,
                );
            }
            (2, Wire::Bytes(bytes)) => read_trainer(bytes, &mut trainer)
                .map_err(|reason| Refusal::Invalid("trainer_spec", reason))?,
            (3, Wire::Bytes(bytes)) => read_normalizer(bytes, &mut normalizer)
                .map_err(|reason| Refusal::Invalid("normalizer_spec", reason))?,
            _ => {}
        }
    }
    if pieces.is_empty() {
        return Err(Refusal::Invalid("pieces", "the vocabulary is empty".to_owned()));
    }
    let algorithm = match trainer.model {
        None | Some(1) => Algorithm::Unigram,
        Some(2) => Algorithm::BytePair,
        Some(other) => {
            let name = match other {
                3 => "WORD".to_owned(),
                4 => "CHAR".to_owned(),
                other => other.to_string(),
            };
            return Err(Refusal::Unsupported("trainer_spec.model_type", name, "UNIGRAM, BPE"));
        }
    };
    if trainer.spaces_behind {
        let field = "trainer_spec.treat_whitespace_as_suffix";
        return Err(Refusal::Unsupported(field, "true".to_owned(), "false"));
    }
    if !normalizer.escape_spaces {
        let field = "normalizer_spec.escape_whitespaces";
        return Err(Refusal::Unsupported(field, "false".to_owned(), "true"));
    }
    Ok(Pieces {
        algorithm,
        pieces,
        space_prefix: normalizer.space_prefix,
        squeeze_spaces: normalizer.squeeze_spaces,
        charsmap: normalizer.charsmap,
    })
}

fn read_piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => {
                piece.text = std::str::from_utf8(bytes).map_err(|_| "is not valid UTF-8")?.to_owned();
            }
            (2, Wire::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (3, Wire::Number(kind)) => {
                piece.kind =
                    PieceKind::from_number(kind).ok_or_else(|| format!("has the unknown type {kind}"))?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn read_trainer(bytes: &[u8], trainer: &mut Trainer) -> Result<(), String> {
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (3, Wire::Number(model)) => trainer.model = Some(model),
            (24, Wire::Number(flag)) => trainer.spaces_behind = flag != 0,
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(bytes: &[u8], normalizer: &mut Normalizer) -> Result<(), String> {
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (2, Wire::Bytes(map)) => normalizer.charsmap = map.to_vec(),
            (3, Wire::Number(flag)) => normalizer.space_prefix = flag != 0,
            (4, Wire::Number(flag)) => normalizer.squeeze_spaces = flag != 0,
            (5, Wire::Number(flag)) => normalizer.escape_spaces = flag != 0,
            _ => {}
        }
    }
    Ok(())
}
