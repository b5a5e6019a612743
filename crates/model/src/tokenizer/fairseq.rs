//! `sentencepiece.bpe.model` of XLM-RoBERTa: a SentencePiece model whose ids were moved by the toolkit that trained it.
//!
//! The first four ids are `<s>`, `<pad>`, `</s>` and `<unk>`; the model's own pieces follow from its fourth one on, and
//! `<mask>` is the last.

use std::path::Path;

use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::roberta::RobertaProcessing;

use super::added::AddedTokens;
use super::protobuf;
use super::sentencepiece::{Piece, PieceKind};
use super::{Tokenizer, TokenizerError};

/// The model's own `<unk>`, `<s>` and `</s>`, which the four replace.
const REPLACED: usize = 3;

impl Tokenizer {
    /// Makes a tokenizer from the bytes of such a file.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] when it is no such file, [`TokenizerError::Unsupported`] naming the option.
    pub(crate) fn from_fairseq_pieces(path: &Path, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut model = protobuf::read_model(path, bytes)?;
        if model.pieces.len() <= REPLACED {
            return Err(TokenizerError::Invalid {
                file: path.to_owned(),
                field: "pieces".to_owned(),
                reason: format!("are {}, too few for a vocabulary", model.pieces.len()),
            });
        }
        let piece = |text: &str, kind| Piece { text: text.to_owned(), score: 0.0, kind };
        let first = [
            piece("<s>", PieceKind::Control),
            piece("<pad>", PieceKind::Control),
            piece("</s>", PieceKind::Control),
            piece("<unk>", PieceKind::Unknown),
        ];
        model.pieces.splice(..REPLACED, first);
        model.pieces.push(piece("<mask>", PieceKind::Control));
        let mut tokenizer = model.into_tokenizer(path, protobuf::FIELDS, &AddedTokens::default())?;
        let special = |text: &str| tokenizer.id(text).map(|id| (text.to_owned(), id));
        if let (Some(begin), Some(end)) = (special("<s>"), special("</s>")) {
            tokenizer.join(PostProcessorWrapper::Roberta(RobertaProcessing::new(end, begin)));
        }
        Ok(tokenizer)
    }
}
