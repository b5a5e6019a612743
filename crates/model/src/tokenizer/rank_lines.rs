//! `tiktoken` files: a line per token, its bytes in base64 and its rank, which is its id.
//!
//! Merges follow from the ranks: a token is made of any two tokens that it can be cut into, lower ranks first.

use std::collections::HashMap;
use std::path::Path;

use super::added::AddedTokens;
use super::bytes::byte_level_text;
use super::gguf::{CONTROL, GgufVocabulary, NORMAL, USER_DEFINED};
use super::pre::Steps;
use super::{Tokenizer, TokenizerError};

/// The longest token, in bytes; runs of spaces are the longest ones.
const MAX_TOKEN_BYTES: usize = 1 << 12;
/// Squares of the tokens' lengths, added up: a bound on the time to load.
const MAX_CUT_WORK: usize = 1 << 30;

/// Whether the bytes begin like such a file.
pub(crate) fn recognizes(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.len() < 2 * MAX_TOKEN_BYTES && rank_line(line).is_some()
}

impl Tokenizer {
    /// Makes a tokenizer from the bytes of a `tiktoken` file. `pre` names the way text is cut before merging, as in
    /// GGUF files (`llama-bpe`, `qwen2`).
    ///
    /// # Errors
    /// [`TokenizerError`] naming the line at fault or the pre-tokenizer that is not known.
    pub fn from_tiktoken(path_for_errors: &Path, bytes: &[u8], pre: &str) -> Result<Self, TokenizerError> {
        Self::tiktoken_with(path_for_errors, bytes, pre, &AddedTokens::default())
    }

    /// The same with special tokens, which the format leaves out.
    pub(crate) fn tiktoken_with(
        path: &Path,
        bytes: &[u8],
        pre: &str,
        added: &AddedTokens,
    ) -> Result<Self, TokenizerError> {
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let tokens = read(bytes).map_err(|(line, reason)| invalid(&format!("line {line}"), reason))?;
        let merges = merges(&tokens).map_err(|reason| invalid("ranks", reason))?;
        let texts: Vec<String> = tokens.iter().map(|token| byte_level_text(token)).collect();
        let whole_words = |steps| {
            let mut steps: Steps = steps;
            steps.ignore_merges = true;
            steps
        };
        byte_level(path, pre, texts, merges, added, whole_words)
    }
}

/// A byte-level vocabulary of any file, with tokens of other files behind it.
pub(crate) fn byte_level(
    path: &Path,
    pre: &str,
    mut tokens: Vec<String>,
    merges: Vec<String>,
    added: &AddedTokens,
    change: impl Fn(Steps) -> Steps,
) -> Result<Tokenizer, TokenizerError> {
    let renamed = |error: TokenizerError| match error {
        TokenizerError::Invalid { file, field, reason } => {
            let field = field.strip_prefix("tokenizer.ggml.").map(str::to_owned).unwrap_or(field);
            TokenizerError::Invalid { file, field, reason }
        }
        TokenizerError::Unsupported { file, field, value, supported } => {
            let field = field.strip_prefix("tokenizer.ggml.").map(str::to_owned).unwrap_or(field);
            TokenizerError::Unsupported { file, field, value, supported }
        }
        other => other,
    };
    let count = tokens.len();
    let behind = added.placed(count).map_err(|(field, reason)| TokenizerError::Invalid {
        file: path.to_owned(),
        field,
        reason,
    })?;
    let kind = |special| if special { CONTROL } else { USER_DEFINED };
    let mut token_types: Vec<i32> =
        (0_u32..).take(count).map(|id| added.get(id).map_or(NORMAL, |token| kind(token.special))).collect();
    token_types.extend(behind.iter().map(|token| kind(token.special)));
    tokens.extend(behind.into_iter().map(|token| token.content));
    let place = |text: &Option<String>| {
        let text = text.as_deref()?;
        tokens.iter().position(|token| token == text).and_then(|id| u32::try_from(id).ok())
    };
    let vocabulary = GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: pre.to_owned(),
        bos: place(&added.bos),
        eos: place(&added.eos),
        add_bos: Some(added.bos.is_some()),
        add_eos: Some(added.eos.is_some()),
        tokens,
        token_types,
        merges,
        file: path.to_owned(),
        ..GgufVocabulary::default()
    };
    Tokenizer::byte_level(vocabulary, change).map_err(renamed)
}

/// The tokens by rank, or the line at fault, counted from 1.
fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, (usize, String)> {
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (token, rank) = rank_line(line).ok_or((number, "is not base64 and a rank".to_owned()))?;
        if rank != tokens.len() {
            return Err((number, format!("has rank {rank} where {} is the next one", tokens.len())));
        }
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            let reason = format!("has a token of {} bytes; 1 to {MAX_TOKEN_BYTES} are allowed", token.len());
            return Err((number, reason));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn rank_line(line: &[u8]) -> Option<(Vec<u8>, usize)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let rank = std::str::from_utf8(&line[space + 1..]).ok()?.trim_end();
    if !rank.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((base64(&line[..space])?, rank.parse().ok()?))
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for &character in &text[..text.len() - padding] {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// All merges, best first, in the alphabet of byte-level vocabularies.
fn merges(tokens: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let work = tokens.iter().fold(0_usize, |work, token| work.saturating_add(token.len() * token.len()));
    if work > MAX_CUT_WORK {
        return Err("the tokens are too many and too long".to_owned());
    }
    let ranks: HashMap<&[u8], usize> =
        tokens.iter().enumerate().map(|(rank, token)| (&token[..], rank)).collect();
    if ranks.len() != tokens.len() {
        return Err("a token appears twice".to_owned());
    }
    let mut merges = Vec::new();
    let mut cuts: Vec<(usize, usize)> = Vec::new();
    for token in tokens {
        cuts.clear();
        cuts.extend(
            (1..token.len()).filter_map(|cut| Some((*ranks.get(&token[..cut])?, *ranks.get(&token[cut..])?))),
        );
        cuts.sort_unstable();
        for &(left, right) in &cuts {
            merges.push(format!("{} {}", byte_level_text(&tokens[left]), byte_level_text(&tokens[right])));
        }
    }
    Ok(merges)
}
