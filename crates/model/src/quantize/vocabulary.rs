//! A checkpoint's tokenizer as the metadata of a GGUF file.

use std::path::Path;

use serde_json::Value as Json;

use super::error::QuantizeError;
use super::gguf_values::Metadata;
use crate::checkpoint::Checkpoint;
use crate::tokenizer::{GgufVocabulary, PieceKind, Tokenizer, pre, protobuf};
use crate::weights::safetensors::read_bounded;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Texts that the ways of cutting words treat differently: digits, contractions, spaces, line ends, marks that have a
/// composed form, scripts without spaces, punctuation.
const PROBES: [&str; 9] = [
    "Hello, world! It's 2023's 12345 tests: don't WE'LL you'Re I'M 'S 't",
    "  indented\n\n\tand   more \n \r\n\r\n end   ",
    "中文测试。你好，世界！１２３４ 日本語のテスト、カタカナ 한국어 시험",
    "e\u{301}clair na\u{308}ive Ünïcode привет мир मराठी ÀÉ straße",
    "a1b22c333d4444 x=y+z; // comment!!! ...??? (foo_bar) [1,2,3] {a:b} <tag/> #hash @user $5.00",
    "😀👍🏽 emoji 🇩🇪 text",
    " leading and trailing ",
    "MixedCASEWords camelCase HTTPServer 3.14159 1,000,000 0x1F",
    "\u{3000}全角\u{a0}space\u{200b}zero",
];

/// Writes the tokenizer, the special tokens and the chat template of a directory's checkpoint.
pub(super) fn write(checkpoint: &Checkpoint, metadata: &mut Metadata) -> Result<(), QuantizeError> {
    let directory = checkpoint.directory();
    let tokenizer = checkpoint.tokenizer()?;
    let mut vocabulary = match pieces(directory)? {
        Some(vocabulary) => vocabulary,
        None => byte_level(checkpoint, &tokenizer)?,
    };
    pad(&mut vocabulary, checkpoint.config().vocab_size);
    let ids = checkpoint.special_ids(&tokenizer);
    let (bos, adds_bos) = (ids.bos, adds_bos(&tokenizer)?);
    metadata.text("tokenizer.ggml.model", &vocabulary.model);
    metadata.text("tokenizer.ggml.pre", &vocabulary.pre);
    metadata.texts("tokenizer.ggml.tokens", &vocabulary.tokens);
    if !vocabulary.scores.is_empty() {
        metadata.floats("tokenizer.ggml.scores", &vocabulary.scores);
    }
    metadata.integers("tokenizer.ggml.token_type", &vocabulary.token_types);
    if !vocabulary.merges.is_empty() {
        metadata.texts("tokenizer.ggml.merges", &vocabulary.merges);
    }
    for (name, id) in
        [("bos", adds_bos.or(bos)), ("eos", ids.eos), ("unknown", ids.unk), ("padding", ids.pad)]
    {
        if let Some(id) = id {
            metadata.number(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    // A turn may end otherwise than a text.
    if let Some(turn) = checkpoint.end_tokens().into_iter().find(|id| Some(*id) != ids.eos) {
        metadata.number("tokenizer.ggml.eot_token_id", turn);
    }
    metadata.flag("tokenizer.ggml.add_bos_token", adds_bos.is_some());
    if let Some(prefix) = vocabulary.add_space_prefix {
        metadata.flag("tokenizer.ggml.add_space_prefix", prefix);
    }
    if let Some(template) = checkpoint.chat_template()? {
        metadata.text("tokenizer.chat_template", template.source());
        if template.source_for(true) != template.source() {
            metadata.texts("tokenizer.chat_templates", &["tool_use".to_owned()]);
            metadata.text("tokenizer.chat_template.tool_use", template.source_for(true));
        }
    }
    Ok(())
}

/// The token that is put before every text.
fn adds_bos(tokenizer: &Tokenizer) -> Result<Option<u32>, QuantizeError> {
    let encode = |special| tokenizer.encode("a", special).map_err(crate::load_error::LoadError::from);
    let (without, with) = (encode(false)?, encode(true)?);
    Ok(with.first().copied().filter(|_| with.len() > without.len() && with[1..].starts_with(&without)))
}

/// The table has as many tokens as there are embeddings: those without a token are never used.
fn pad(vocabulary: &mut GgufVocabulary, size: usize) {
    for id in vocabulary.tokens.len()..size {
        vocabulary.tokens.push(format!("[PAD{id}]"));
        vocabulary.token_types.push(UNUSED);
        if !vocabulary.scores.is_empty() {
            vocabulary.scores.push(0.0);
        }
    }
}

/// The vocabulary of a `tokenizer.model` of SentencePiece, if the directory has one.
fn pieces(directory: &Path) -> Result<Option<GgufVocabulary>, QuantizeError> {
    let path = directory.join("tokenizer.model");
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = read_bounded(&path)?;
    if !protobuf::recognizes(&bytes) {
        return Ok(None);
    }
    let pieces = protobuf::read_model(&path, &bytes).map_err(crate::load_error::LoadError::from)?;
    let kind = |kind| match kind {
        PieceKind::Normal => NORMAL,
        PieceKind::Unknown => 2,
        PieceKind::Control => CONTROL,
        PieceKind::UserDefined => USER_DEFINED,
        PieceKind::Unused => UNUSED,
        PieceKind::Byte => 6,
    };
    let mut vocabulary = GgufVocabulary {
        model: if pieces.is_unigram() { "t5" } else { "llama" }.to_owned(),
        pre: "default".to_owned(),
        add_space_prefix: Some(pieces.space_prefix),
        ..GgufVocabulary::default()
    };
    for piece in &pieces.pieces {
        vocabulary.tokens.push(piece.text.clone());
        vocabulary.scores.push(piece.score);
        vocabulary.token_types.push(kind(piece.kind));
    }
    for (id, text, special) in added(directory)? {
        let place = id as usize;
        if place >= vocabulary.tokens.len() {
            pad(&mut vocabulary, place);
            vocabulary.tokens.push(text);
            vocabulary.scores.push(-1000.0);
            vocabulary.token_types.push(if special { CONTROL } else { USER_DEFINED });
        }
    }
    Ok(Some(vocabulary))
}

/// Tokens that other files of the directory add, in order of their ids.
fn added(directory: &Path) -> Result<Vec<(u32, String, bool)>, QuantizeError> {
    let read = |name: &str| -> Result<Json, QuantizeError> {
        let path = directory.join(name);
        Ok(if path.is_file() { crate::weights::safetensors::read_json(&path)? } else { Json::Null })
    };
    let (config, plain) = (read("tokenizer_config.json")?, read("added_tokens.json")?);
    let mut found: Vec<(u32, String, bool)> = Vec::new();
    for (id, token) in config.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        if let (Ok(id), Some(text)) = (id.parse(), token.get("content").and_then(Json::as_str)) {
            found.push((id, text.to_owned(), special));
        }
    }
    for (text, id) in plain.as_object().into_iter().flatten() {
        if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok())
            && found.iter().all(|(known, ..)| *known != id)
        {
            found.push((id, text.clone(), false));
        }
    }
    found.sort_by_key(|(id, ..)| *id);
    Ok(found)
}

/// The vocabulary of byte-level BPE, whatever files it came from.
fn byte_level(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<GgufVocabulary, QuantizeError> {
    let path = checkpoint.directory();
    let unsupported = |what: &str| {
        let problem = format!(
            "the tokenizer {what}, which is not written to GGUF files; possible are byte-level BPE and SentencePiece's \
             tokenizer.model"
        );
        QuantizeError::unsupported(path, problem)
    };
    let json = tokenizer.to_json().map_err(crate::load_error::LoadError::from)?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(unsupported("is no BPE"));
    }
    if model["byte_fallback"] == true {
        return Err(unsupported("is SentencePiece's without its tokenizer.model"));
    }
    let mut places: Vec<Option<(String, i32)>> = Vec::new();
    let mut place = |id: Option<u64>, text: &str, kind: i32| {
        let Some(id) = id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < 1 << 24) else { return };
        if places.len() <= id {
            places.resize(id + 1, None);
        }
        places[id] = Some((text.to_owned(), kind));
    };
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        place(id.as_u64(), text, NORMAL);
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
        place(token["id"].as_u64(), token["content"].as_str().unwrap_or_default(), kind);
    }
    let merges = model["merges"].as_array().into_iter().flatten().map(|merge| match merge {
        Json::Array(pair) => {
            let part = |index: usize| pair.get(index).and_then(Json::as_str).unwrap_or_default();
            format!("{} {}", part(0), part(1))
        }
        other => other.as_str().unwrap_or_default().to_owned(),
    });
    let mut vocabulary = GgufVocabulary {
        model: "gpt2".to_owned(),
        merges: merges.collect(),
        file: path.to_owned(),
        ..GgufVocabulary::default()
    };
    for (id, place) in places.into_iter().enumerate() {
        let (text, kind) = place.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
        vocabulary.tokens.push(text);
        vocabulary.token_types.push(kind);
    }
    let expected: Vec<_> = PROBES.iter().map(|probe| tokenizer.encode(probe, false).ok()).collect();
    let cuts = cuts(&json);
    let mut like = None;
    for name in pre::NAMES {
        let named = GgufVocabulary { pre: name.to_owned(), ..vocabulary.clone() };
        let Ok(other) = Tokenizer::from_gguf(named.clone()) else { continue };
        let found = PROBES.iter().map(|probe| other.encode(probe, false).ok());
        if !found.eq(expected.iter().cloned()) {
            continue;
        }
        // A vocabulary can be such that two ways come to the same; the one with the same steps is meant.
        if other.to_json().is_ok_and(|json| self::cuts(&json) == cuts) {
            return Ok(named);
        }
        like.get_or_insert(named);
    }
    if let Some(named) = like {
        return Ok(named);
    }
    Err(unsupported(&format!(
        "cuts words in a way that has no name in GGUF files (of {})",
        pre::NAMES.join(", ")
    )))
}

/// The steps of a pre-tokenizer, without what only concerns offsets.
fn cuts(tokenizer: &Json) -> Vec<Json> {
    let steps = &tokenizer["pre_tokenizer"];
    let mut steps = match steps["pretokenizers"].as_array() {
        Some(steps) => steps.clone(),
        None => vec![steps.clone()],
    };
    for step in steps.iter_mut().filter_map(Json::as_object_mut) {
        step.remove("trim_offsets");
    }
    steps
}
