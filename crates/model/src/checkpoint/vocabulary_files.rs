//! Which files of a directory hold its tokenizer: `tokenizer.json`, else the files that older models come with.

use std::path::Path;

use serde_json::Value as Json;

use crate::load_error::{LoadError, LoadResult};
use crate::tokenizer::added::{AddedTokens, Around};
use crate::tokenizer::{Tokenizer, TokenizerError, glm, protobuf, rank_lines};
use crate::weights::safetensors::{read_bounded, read_json};

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const MODEL_CONFIG: &str = "config.json";
const ADDED_TOKENS: &str = "added_tokens.json";
/// ChatGLM-6B's SentencePiece.
const ICE_TEXT: &str = "ice_text.model";
/// SentencePiece, or ranks of Llama 3 and GLM-4.
const MODEL: &str = "tokenizer.model";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const QWEN: &str = "qwen.tiktoken";

/// Classes of `tokenizer_config.json` whose `vocab.json` we can read, and the names of their pre-tokenizers.
const CLASSES: [(&str, &str); 7] = [
    ("GPT2Tokenizer", "gpt-2"),
    ("GPT2TokenizerFast", "gpt-2"),
    ("CodeGenTokenizer", "gpt-2"),
    ("CodeGenTokenizerFast", "gpt-2"),
    (MOSS, "gpt-2"),
    ("Qwen2Tokenizer", "qwen2"),
    ("Qwen2TokenizerFast", "qwen2"),
];

/// MOSS's class; all tokens that it adds are marks of turns.
const MOSS: &str = "MossTokenizer";

/// Builds the tokenizer.
pub(super) fn tokenizer(directory: &Path) -> LoadResult<Tokenizer> {
    let there = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
    if let Some(path) = there(TOKENIZER) {
        return Ok(Tokenizer::from_json(&path, &read_bounded(&path)?)?);
    }
    let config = Config::read(directory)?;
    if let Some(path) = there(ICE_TEXT) {
        let image_tokens = config.image_tokens(directory)?;
        return Ok(Tokenizer::chatglm_6b(&path, &read_bounded(&path)?, image_tokens)?);
    }
    if let Some(path) = there(MODEL).filter(|_| config.is_chatglm()) {
        return chatglm(directory, &config, &path);
    }
    if let Some(path) = there(MODEL) {
        let bytes = read_bounded(&path)?;
        if rank_lines::recognizes(&bytes) {
            let around = Around { bos: "<|begin_of_text|>", eos: "<|end_of_text|>", adds: (true, false) };
            let count = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
            let added = config.added_or(directory, around, count, llama3_tokens)?;
            return Ok(Tokenizer::tiktoken_with(&path, &bytes, "llama-bpe", &added)?);
        }
        if !protobuf::recognizes(&bytes) {
            let problem = "is neither a SentencePiece model nor a tiktoken file";
            return Err(LoadError::malformed(&path, "file", problem));
        }
        let around = Around { bos: "<s>", eos: "</s>", adds: (true, false) };
        let added = config.added(directory, around)?;
        return Ok(Tokenizer::sentencepiece_with(&path, &bytes, &added)?);
    }
    if let (Some(vocab), Some(merges)) = (there(VOCAB), there(MERGES)) {
        let pre = config.pre_tokenizer(directory)?;
        let around = Around { bos: "<|endoftext|>", eos: "<|endoftext|>", adds: (false, false) };
        let mut added = config.added(directory, around)?;
        if config.class() == Some(MOSS) {
            added.all_special();
        }
        let (words, pairs) = (read_bounded(&vocab)?, read_bounded(&merges)?);
        return Ok(Tokenizer::merges_with(&vocab, &words, &pairs, pre, &added)?);
    }
    if let Some(path) = there(QWEN) {
        let bytes = read_bounded(&path)?;
        let around = Around { bos: "<|endoftext|>", eos: "<|endoftext|>", adds: (false, false) };
        let count = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        let added = config.added_or(directory, around, count, qwen_tokens)?;
        return Ok(Tokenizer::tiktoken_with(&path, &bytes, "qwen2", &added)?);
    }
    let problem = format!("has no tokenizer: neither {TOKENIZER}, {MODEL}, {VOCAB} with {MERGES} nor {QWEN}");
    Err(LoadError::not_found(directory, problem))
}

/// The `tokenizer.model` of ChatGLM2, ChatGLM3 or GLM-4.
fn chatglm(directory: &Path, config: &Config, path: &Path) -> LoadResult<Tokenizer> {
    let bytes = read_bounded(path)?;
    let none = Around { bos: "", eos: "", adds: (false, false) };
    if rank_lines::recognizes(&bytes) {
        let count = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        let added = config.added_or(directory, none, count, glm::glm4_tokens)?;
        return Ok(Tokenizer::glm4(path, &bytes, &added)?);
    }
    if !protobuf::recognizes(&bytes) {
        let problem = "is neither a SentencePiece model nor a tiktoken file";
        return Err(LoadError::malformed(path, "file", problem));
    }
    let added = config.added(directory, none)?;
    Ok(Tokenizer::chatglm2(path, &bytes, !config.is_chatglm2(), &added)?)
}

/// The small files beside a vocabulary.
struct Config {
    tokenizer: Json,
    added: Json,
    model: Json,
}

impl Config {
    fn read(directory: &Path) -> LoadResult<Self> {
        let one = |name: &str| {
            let path = directory.join(name);
            if path.is_file() { read_json(&path) } else { Ok(Json::Null) }
        };
        Ok(Self { tokenizer: one(TOKENIZER_CONFIG)?, added: one(ADDED_TOKENS)?, model: one(MODEL_CONFIG)? })
    }

    /// The class that `tokenizer_config.json` names.
    fn class(&self) -> Option<&str> {
        self.tokenizer.get("tokenizer_class").and_then(Json::as_str)
    }

    /// Whether the vocabulary is one of ChatGLM's, by its class or by the model's family.
    fn is_chatglm(&self) -> bool {
        let text = |config: &Json, name: &str| config.get(name).and_then(Json::as_str).map(str::to_owned);
        match text(&self.tokenizer, "tokenizer_class") {
            Some(class) => class.starts_with("ChatGLM"),
            None => text(&self.model, "model_type").is_some_and(|family| family == "chatglm"),
        }
    }

    /// ChatGLM2 and ChatGLM3 are told apart by their names alone.
    fn is_chatglm2(&self) -> bool {
        let names = [self.tokenizer.get("name_or_path"), self.model.get("_name_or_path")];
        names.into_iter().flatten().filter_map(Json::as_str).any(is_chatglm2)
    }

    /// ChatGLM-6B's ids before those of its text, when its files say.
    fn image_tokens(&self, directory: &Path) -> LoadResult<Option<usize>> {
        let field = "num_image_tokens";
        match self.tokenizer.get(field) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
                Some(count) => Ok(Some(count)),
                None => {
                    let path = directory.join(TOKENIZER_CONFIG);
                    Err(LoadError::malformed(&path, field, "must be a whole number"))
                }
            },
        }
    }

    fn added(&self, directory: &Path, around: Around<'_>) -> Result<AddedTokens, TokenizerError> {
        AddedTokens::read(&directory.join(TOKENIZER_CONFIG), &self.tokenizer, &self.added, around)
    }

    /// The tokens of the files, or the family's own behind a vocabulary of `count` when they name none.
    fn added_or(
        &self,
        directory: &Path,
        around: Around<'_>,
        count: usize,
        family: fn() -> Vec<String>,
    ) -> Result<AddedTokens, TokenizerError> {
        let mut added = self.added(directory, around)?;
        if added.is_empty() {
            for (id, text) in (0_u32..).skip(count).zip(family()) {
                added.insert(id, &text, true);
            }
        }
        Ok(added)
    }

    /// The pre-tokenizer of the class that the vocabulary was made for.
    fn pre_tokenizer(&self, directory: &Path) -> LoadResult<&'static str> {
        let path = directory.join(TOKENIZER_CONFIG);
        if self.tokenizer.get("add_prefix_space").and_then(Json::as_bool) == Some(true) {
            let problem = "a space before every text is not supported for this vocabulary";
            return Err(LoadError::unsupported(&path, "add_prefix_space", problem));
        }
        let class = self.class().unwrap_or("GPT2Tokenizer");
        match CLASSES.iter().find(|(name, _)| *name == class) {
            Some((_, pre)) => Ok(pre),
            None => {
                let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
                let problem = format!(
                    "{} is not supported without {TOKENIZER}; supported are {}",
                    class.escape_debug(),
                    known.join(", ")
                );
                Err(LoadError::unsupported(&path, "tokenizer_class", problem))
            }
        }
    }
}

/// Whether a model's name is that of ChatGLM2 or of a model made from it, which have no roles.
pub(super) fn is_chatglm2(name: &str) -> bool {
    let name = name.to_lowercase();
    ["chatglm2", "codegeex2"].iter().any(|known| name.contains(known))
}

/// The special tokens of Llama 3, which its file of ranks leaves out.
fn llama3_tokens() -> Vec<String> {
    let reserved = |range: std::ops::Range<u32>| range.map(|n| format!("<|reserved_special_token_{n}|>"));
    let named = |text: &str| std::iter::once(text.to_owned());
    named("<|begin_of_text|>")
        .chain(named("<|end_of_text|>"))
        .chain(reserved(0..4))
        .chain(named("<|start_header_id|>"))
        .chain(named("<|end_header_id|>"))
        .chain(reserved(4..5))
        .chain(named("<|eot_id|>"))
        .chain(reserved(5..251))
        .collect()
}

/// The special tokens of Qwen, which its file of ranks leaves out.
fn qwen_tokens() -> Vec<String> {
    let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].into_iter().map(str::to_owned);
    named.chain((0..205).map(|number| format!("<|extra_{number}|>"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_numbers_of_special_tokens() {
        let llama = llama3_tokens();
        assert_eq!(llama.len(), 256);
        assert_eq!((llama[6].as_str(), llama[9].as_str()), ("<|start_header_id|>", "<|eot_id|>"));
        assert_eq!(llama[255], "<|reserved_special_token_250|>");
        assert_eq!(qwen_tokens().len(), 208);
    }
}
