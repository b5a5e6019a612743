//! Tokens that other files of a checkpoint add to a vocabulary, and those that are put around a text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

use super::TokenizerError;
use super::table::{TokenTable, TooLarge};

/// The longest added token, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// What a family puts around texts when its files do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    /// The text of the beginning.
    pub(crate) bos: &'a str,
    /// The text of the end.
    pub(crate) eos: &'a str,
    /// Whether a beginning and an end are added.
    pub(crate) adds: (bool, bool),
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) special: bool,
}

/// What `tokenizer_config.json`, `added_tokens.json` and `special_tokens_map.json` say.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddedTokens {
    tokens: BTreeMap<u32, Token>,
    /// The text of the token before a text, when one is added.
    pub(crate) bos: Option<String>,
    /// The text of the token after a text, when one is added.
    pub(crate) eos: Option<String>,
    file: PathBuf,
}

impl AddedTokens {
    /// Tokens in order of their ids, for vocabularies whose file holds them already.
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    /// Adds one.
    pub(crate) fn insert(&mut self, id: u32, text: &str, special: bool) {
        self.tokens.insert(id, Token { text: text.to_owned(), special });
    }

    /// Adds the tokens of another set whose ids are free.
    pub(crate) fn insert_missing(&mut self, others: &Self) {
        for (&id, token) in &others.tokens {
            self.tokens.entry(id).or_insert_with(|| token.clone());
        }
    }

    /// Makes all of them control tokens.
    pub(crate) fn all_special(&mut self) {
        self.tokens.values_mut().for_each(|token| token.special = true);
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Reads `added_tokens_decoder` of a `tokenizer_config.json` at `path` and the contents of an `added_tokens.json`.
    pub(crate) fn read(
        path: &Path,
        config: &Value,
        added: &Value,
        around: Around<'_>,
    ) -> Result<Self, TokenizerError> {
        let mut tokens = Self::new(path);
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let named: Vec<&str> = ["bos_token", "eos_token", "unk_token", "pad_token"]
            .iter()
            .filter_map(|name| text_of(config.get(name)?))
            .collect();
        for (text, id) in added.as_object().into_iter().flatten() {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| invalid("added_tokens", format!("{text:?} has no id")))?;
            let special = named.contains(&text.as_str()) || (text.starts_with("<|") && text.ends_with("|>"));
            tokens.insert(id, text, special);
        }
        for (id, token) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten()
        {
            let field = format!("added_tokens_decoder.{}", id.escape_debug());
            let number = id.parse().map_err(|_| invalid(&field, "is not an id".to_owned()))?;
            let text = text_of(token).ok_or_else(|| invalid(&field, "has no content".to_owned()))?;
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            tokens.insert(number, text, special);
        }
        for (id, token) in &tokens.tokens {
            if token.text.is_empty() || token.text.len() > MAX_TOKEN_BYTES {
                let reason = format!("token {id} has {} bytes", token.text.len());
                return Err(invalid("added_tokens_decoder", reason));
            }
        }
        let wanted = |name: &str, default: bool| config.get(name).and_then(Value::as_bool).unwrap_or(default);
        let text =
            |name: &str, default: &str| config.get(name).and_then(text_of).unwrap_or(default).to_owned();
        tokens.bos = wanted("add_bos_token", around.adds.0).then(|| text("bos_token", around.bos));
        tokens.eos = wanted("add_eos_token", around.adds.1).then(|| text("eos_token", around.eos));
        Ok(tokens)
    }

    /// The token of an id.
    pub(crate) fn get(&self, id: u32) -> Option<&Token> {
        self.tokens.get(&id)
    }

    /// The tokens behind a vocabulary of `count`, which must follow it without a gap; or the field at fault.
    pub(crate) fn placed(&self, count: usize) -> Result<Vec<AddedToken>, (String, String)> {
        let mut next = count;
        let mut placed = Vec::new();
        for (&id, token) in &self.tokens {
            if (id as usize) < count {
                continue;
            }
            if id as usize != next {
                let reason = format!("token {:?} has id {id} where {next} is the next one", token.text);
                return Err(("added tokens".to_owned(), reason));
            }
            next += 1;
            placed.push(AddedToken::from(token.text.as_str(), token.special).normalized(false));
        }
        Ok(placed)
    }

    /// Appends what follows a vocabulary of `count`.
    pub(crate) fn extend_table(&self, count: usize, table: &mut TokenTable) -> Result<(), TooLarge> {
        for (_, token) in self.tokens.iter().filter(|(id, _)| **id as usize >= count) {
            table.push(&token.text, token.special, |text, out| out.extend_from_slice(text.as_bytes()))?;
        }
        Ok(())
    }

    /// The ids before and after a text.
    pub(crate) fn around(
        &self,
        id: impl Fn(&str) -> Option<u32>,
        file: &Path,
    ) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let one = |text: &Option<String>, field: &str| match text {
            None => Ok(Vec::new()),
            Some(text) => id(text).map(|id| vec![id]).ok_or_else(|| TokenizerError::Invalid {
                file: if self.file.as_os_str().is_empty() { file.to_owned() } else { self.file.clone() },
                field: field.to_owned(),
                reason: format!("{text:?} is not in the vocabulary"),
            }),
        };
        Ok((one(&self.bos, "bos_token")?, one(&self.eos, "eos_token")?))
    }
}

/// A token's text, given alone or as an object.
fn text_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}
