//! The tokenizers of the GLM families. Their own code is Python, which is never run; this is what it does.
//!
//! ChatGLM-6B: a SentencePiece model with symbols for blanks, `[gMASK] <sop>` behind a text. ChatGLM2 and ChatGLM3: a
//! SentencePiece model with special tokens behind it, `[gMASK] sop` before a text. GLM-4: a `tiktoken` file,
//! `[gMASK] <sop>` before a text.

use std::path::Path;
use std::sync::Arc;

use super::added::AddedTokens;
use super::bytes::fallback_byte;
use super::protobuf;
use super::reading::{self, Reading, Symbols};
use super::sentencepiece::{Piece, PieceKind, Pieces};
use super::table::TokenTable;
use super::{Tokenizer, TokenizerError};

/// What the code of ChatGLM-6B adds to a vocabulary without special tokens.
const FIRST_SPECIAL: [&str; 8] =
    ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"];
/// Ids before the text's in such vocabularies.
const IMAGE_TOKENS: usize = 20_000;
/// The most of them that a configuration may ask for.
const MAX_IMAGE_TOKENS: usize = 1 << 17;

/// The special tokens behind ChatGLM2's vocabulary; ChatGLM3 has roles too.
pub(crate) fn chatglm2_tokens(roles: bool) -> Vec<String> {
    let names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"].into_iter();
    let more = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];
    names.chain(more.into_iter().filter(|_| roles)).map(str::to_owned).collect()
}

/// The special tokens behind GLM-4's ranks.
pub(crate) fn glm4_tokens() -> Vec<String> {
    let names = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"];
    let roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];
    let media = ["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"];
    names.into_iter().chain(roles).chain(media).map(str::to_owned).collect()
}

impl Tokenizer {
    /// ChatGLM-6B's tokenizer from its `ice_text.model`. `image_tokens` are the ids before the text's; without them
    /// it is what the published code assumes.
    pub(crate) fn chatglm_6b(
        path: &Path,
        bytes: &[u8],
        image_tokens: Option<usize>,
    ) -> Result<Self, TokenizerError> {
        let mut pieces = protobuf::read_model(path, bytes)?;
        let complete = pieces.pieces.iter().any(|piece| piece.text == "[gMASK]");
        if !complete {
            complete_vocabulary(&mut pieces);
        }
        let offset = image_tokens.unwrap_or(if complete { 0 } else { IMAGE_TOKENS });
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        if offset > MAX_IMAGE_TOKENS {
            let reason = format!("is {offset}; {MAX_IMAGE_TOKENS} are the most");
            return Err(invalid("num_image_tokens", reason));
        }
        let table = table(&pieces, offset).map_err(|reason| invalid("pieces", reason))?;
        let (model, reading) =
            inner_vocabulary(pieces, offset).map_err(|reason| invalid("pieces", reason))?;
        let mut tokenizer = model.into_tokenizer(path, protobuf::FIELDS, &AddedTokens::default())?;
        let suffix = named(&reading, ["[gMASK]", "<sop>"]).map_err(|reason| invalid("pieces", reason))?;
        tokenizer.surround(Vec::new(), suffix);
        tokenizer.read_as(reading, Some(table));
        Ok(tokenizer)
    }

    /// ChatGLM2's and ChatGLM3's tokenizer from a `tokenizer.model` of SentencePiece; `more` are tokens of other
    /// files.
    pub(crate) fn chatglm2(
        path: &Path,
        bytes: &[u8],
        roles: bool,
        more: &AddedTokens,
    ) -> Result<Self, TokenizerError> {
        let pieces = protobuf::read_model(path, bytes)?;
        let mut added = AddedTokens::new(path);
        let mut reading = Reading::default();
        for (id, text) in (0_u32..).skip(pieces.pieces.len()).zip(chatglm2_tokens(roles)) {
            added.insert(id, &text, true);
            match text.as_str() {
                "sop" => reading.behind = Some((text, id)),
                // Nobody writes it: it is what the model may end with.
                "eop" => {}
                _ => reading.special.push((text, id)),
            }
        }
        added.insert_missing(more);
        let mut tokenizer = pieces.into_tokenizer(path, protobuf::FIELDS, &added)?;
        let prefix = named(&reading, ["[gMASK]", "sop"]).map_err(|reason| TokenizerError::Invalid {
            file: path.to_owned(),
            field: "pieces".to_owned(),
            reason,
        })?;
        tokenizer.surround(prefix, Vec::new());
        tokenizer.read_as(reading, None);
        Ok(tokenizer)
    }

    /// GLM-4's tokenizer from a `tokenizer.model` of ranks.
    pub(crate) fn glm4(path: &Path, bytes: &[u8], added: &AddedTokens) -> Result<Self, TokenizerError> {
        let mut tokenizer = Self::tiktoken_with(path, bytes, "glm4", added)?;
        let id = |text: &str| {
            tokenizer.id(text).ok_or_else(|| TokenizerError::Invalid {
                file: path.to_owned(),
                field: "special tokens".to_owned(),
                reason: format!("{text:?} is not among them"),
            })
        };
        let prefix = vec![id("[gMASK]")?, id("<sop>")?];
        tokenizer.surround(prefix, Vec::new());
        Ok(tokenizer)
    }

    /// Sets what is done to texts, and what ids stand for when the model's own pieces were renamed.
    fn read_as(&mut self, reading: Reading, table: Option<TokenTable>) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.reading = Some(reading);
            if let Some(table) = table {
                inner.table = Arc::new(table);
            }
        }
    }
}

fn named(reading: &Reading, tokens: [&str; 2]) -> Result<Vec<u32>, String> {
    let one = |token: &str| reading.id(token).ok_or_else(|| format!("do not have {token}"));
    tokens.into_iter().map(one).collect()
}

/// Adds what the code of ChatGLM-6B adds to an early `ice_text.model`.
fn complete_vocabulary(pieces: &mut Pieces) {
    let mut add = |text: String, kind| pieces.pieces.push(Piece { text, score: 0.0, kind });
    FIRST_SPECIAL.into_iter().for_each(|text| add(text.to_owned(), PieceKind::Control));
    reading::blanks().for_each(|text| add(text, PieceKind::UserDefined));
    (0..=u8::MAX).for_each(|byte| add(format!("<0x{byte:02X}>"), PieceKind::Byte));
}

/// What each id stands for, blanks as they are written.
fn table(pieces: &Pieces, offset: usize) -> Result<TokenTable, String> {
    let too_large = |_| "more than 4 GiB of text".to_owned();
    let mut table = TokenTable::default();
    table.leading_spaces = usize::from(pieces.space_prefix);
    for _ in 0..offset {
        table.push_absent().map_err(too_large)?;
    }
    for piece in &pieces.pieces {
        let special = matches!(piece.kind, PieceKind::Control | PieceKind::Unknown);
        table
            .push(&piece.text, special, |text, out| match (piece.kind, fallback_byte(text)) {
                (PieceKind::Byte, Some(byte)) => out.push(byte),
                (PieceKind::Control | PieceKind::Unknown, _) => out.extend_from_slice(text.as_bytes()),
                _ => match reading::meaning(text) {
                    Some(meaning) => out.extend_from_slice(meaning.as_bytes()),
                    None => out.extend_from_slice(text.replace('▁', " ").as_bytes()),
                },
            })
            .map_err(too_large)?;
    }
    Ok(table)
}

/// The pieces as the model has them: symbols are single characters, so that nothing cuts them and no space comes
/// before what follows them, and tokens that no text may become have texts that nobody can write.
fn inner_vocabulary(mut pieces: Pieces, offset: usize) -> Result<(Pieces, Reading), String> {
    let mut reading = Reading::default();
    let mut symbols = Symbols::default();
    for (place, piece) in pieces.pieces.iter_mut().enumerate() {
        let id = u32::try_from(place + offset).map_err(|_| "are too many".to_owned())?;
        match piece.kind {
            PieceKind::UserDefined => {
                let atom = symbols
                    .insert(&piece.text, id)
                    .ok_or_else(|| format!("have more than {} symbols", reading::MAX_SYMBOLS))?;
                piece.text = atom.to_string();
                piece.kind = PieceKind::Normal;
            }
            PieceKind::Control => {
                let text = std::mem::replace(&mut piece.text, reading::unwritable(place + offset));
                reading.special.push((text, id));
                piece.kind = PieceKind::Unused;
            }
            _ => {}
        }
    }
    let image = |place| Piece { text: reading::unwritable(place), score: 0.0, kind: PieceKind::Unused };
    pieces.pieces.splice(..0, (0..offset).map(image));
    reading.symbols = Some(symbols);
    Ok((pieces, reading))
}
