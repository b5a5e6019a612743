//! `vocab.json` with `merges.txt`: byte-level BPE as GPT-2 first published it.

use std::path::Path;

use serde_json::Value;

use super::added::AddedTokens;
use super::rank_lines::byte_level;
use super::{Tokenizer, TokenizerError};

impl Tokenizer {
    /// Makes a tokenizer from the bytes of a `vocab.json` and of its `merges.txt`. `pre` names the way text is cut
    /// before merging, as in GGUF files (`gpt-2`, `qwen2`).
    ///
    /// # Errors
    /// [`TokenizerError`] naming the token or merge at fault or the pre-tokenizer that is not known.
    pub fn from_vocab_and_merges(
        path_for_errors: &Path,
        vocab: &[u8],
        merges: &[u8],
        pre: &str,
    ) -> Result<Self, TokenizerError> {
        Self::merges_with(path_for_errors, vocab, merges, pre, &AddedTokens::default())
    }

    /// The same with tokens of other files.
    pub(crate) fn merges_with(
        path: &Path,
        vocab: &[u8],
        merges: &[u8],
        pre: &str,
        added: &AddedTokens,
    ) -> Result<Self, TokenizerError> {
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let vocab: Value =
            serde_json::from_slice(vocab).map_err(|error| invalid("JSON", error.to_string()))?;
        let vocab = vocab.as_object().ok_or_else(|| invalid("JSON", "must be an object".to_owned()))?;
        let mut tokens = vec![String::new(); vocab.len()];
        for (token, id) in vocab {
            let place = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
            // Two tokens of one id leave another id empty, which is refused later.
            let place = place.ok_or_else(|| {
                invalid("tokens", format!("the id {id} of {token:?} is not below {}", vocab.len()))
            })?;
            place.clone_from(token);
        }
        let text = std::str::from_utf8(merges).map_err(|error| invalid("merges.txt", error.to_string()))?;
        let lines = text.lines().map(|line| line.trim_end_matches(['\r', '\n']));
        let mut merges: Vec<String> = Vec::new();
        for (index, line) in lines.enumerate() {
            if !(line.is_empty() || (index == 0 && line.starts_with("#version"))) {
                merges.push(line.to_owned());
            }
        }
        byte_level(path, pre, tokens, merges, added, |steps| steps)
    }
}
