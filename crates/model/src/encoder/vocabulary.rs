//! Which files of a directory hold an encoder's tokenizer: `tokenizer.json`, else those of older models.

use std::path::Path;

use serde_json::Value as Json;

use super::sentence::object;
use crate::load_error::{LoadError, LoadResult};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::wordpiece::BertOptions;
use crate::weights::safetensors::read_bounded;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// BERT's vocabulary: a token a line.
const WORDS: &str = "vocab.txt";
/// The SentencePiece model of XLM-RoBERTa.
const PIECES: &str = "sentencepiece.bpe.model";

/// Builds the tokenizer.
pub(super) fn tokenizer(directory: &Path) -> LoadResult<Tokenizer> {
    let there = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
    if let Some(path) = there(TOKENIZER) {
        return Ok(Tokenizer::from_json(&path, &read_bounded(&path)?)?);
    }
    if let Some(path) = there(WORDS) {
        let config = object(&directory.join(TOKENIZER_CONFIG))?.unwrap_or_default();
        let flag = |name: &str| config.get(name).and_then(Json::as_bool);
        let options = BertOptions {
            lowercase: flag("do_lower_case").unwrap_or(true),
            strip_accents: flag("strip_accents"),
            chinese_characters: flag("tokenize_chinese_chars").unwrap_or(true),
        };
        return Ok(Tokenizer::from_words(&path, &read_bounded(&path)?, options)?);
    }
    if let Some(path) = there(PIECES) {
        return Ok(Tokenizer::from_fairseq_pieces(&path, &read_bounded(&path)?)?);
    }
    let problem = format!("has no tokenizer: none of {TOKENIZER}, {WORDS} and {PIECES}");
    Err(LoadError::not_found(directory, problem))
}
