//! `tokenizer.model`, SentencePiece's protocol buffer, from the vocabulary of a GGUF file.

use crate::tokenizer::GgufVocabulary;

/// Wire types.
const VARINT: u64 = 0;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | VARINT);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | BYTES);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// The file's bytes; `None` when the vocabulary is not SentencePiece's.
pub(super) fn model(vocabulary: &GgufVocabulary) -> Option<Vec<u8>> {
    let algorithm = match vocabulary.model.as_str() {
        "llama" => 2,
        "t5" => 1,
        _ => return None,
    };
    let mut out = Vec::new();
    for (id, text) in vocabulary.tokens.iter().enumerate() {
        let mut piece = Vec::new();
        bytes(&mut piece, 1, text.as_bytes());
        varint(&mut piece, 2 << 3 | FIXED32);
        piece.extend(vocabulary.scores.get(id).copied().unwrap_or(0.0).to_le_bytes());
        let kind = vocabulary.token_types.get(id).copied().unwrap_or(1);
        number(&mut piece, 3, u64::try_from(kind).unwrap_or(1));
        bytes(&mut out, 1, &piece);
    }
    let mut trainer = Vec::new();
    number(&mut trainer, 3, algorithm);
    number(&mut trainer, 35, 1);
    for (field, id) in [(40, vocabulary.unk), (41, vocabulary.bos), (42, vocabulary.eos)] {
        if let Some(id) = id {
            number(&mut trainer, field, id.into());
        }
    }
    bytes(&mut out, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, b"identity");
    if !vocabulary.precompiled_charsmap.is_empty() {
        bytes(&mut normalizer, 2, &vocabulary.precompiled_charsmap);
    }
    number(&mut normalizer, 3, vocabulary.add_space_prefix.unwrap_or(true).into());
    number(&mut normalizer, 4, vocabulary.remove_extra_whitespaces.unwrap_or(false).into());
    number(&mut normalizer, 5, 1);
    bytes(&mut out, 3, &normalizer);
    Some(out)
}
