//! Hugging Face `tokenizer.json`: read by the `tokenizers` crate, decoder steps turned into a table of bytes.

use std::path::Path;

use serde_json::Value;

use super::bytes::{byte_level_bytes, fallback_byte};
use super::table::TokenTable;
use super::{Tokenizer, TokenizerError, guarded};

/// Decoders that [`Plan`] knows.
const DECODERS: &str =
    "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Sequence, Strip, WordPiece, BPEDecoder";

/// How a token's text becomes bytes, read off the tokenizer's decoder.
#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    leading_spaces: usize,
    fused: bool,
}

#[derive(Debug)]
enum Step {
    ByteLevel,
    ByteFallback,
    Replace {
        from: String,
        to: String,
    },
    /// Removes up to so many of the text at each end of the token.
    Strip {
        text: char,
        start: usize,
        stop: usize,
    },
    /// A token continues a word when it has the prefix, else a space comes first.
    WordPiece {
        prefix: String,
    },
    /// A token ends a word when it has the suffix.
    WordEnd {
        suffix: String,
    },
}

impl Tokenizer {
    /// Makes a tokenizer from the bytes of a `tokenizer.json`. Padding and truncation in the file are ignored.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] when the file is no tokenizer, [`TokenizerError::Unsupported`] naming a decoder.
    pub fn from_json(path_for_errors: &Path, json: &[u8]) -> Result<Self, TokenizerError> {
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path_for_errors.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let text = std::str::from_utf8(json).map_err(|error| invalid("text", error.to_string()))?;
        let tokenizer = guarded(|| {
            let mut tokenizer: tokenizers::Tokenizer = text.parse()?;
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            Ok(tokenizer)
        })
        .map_err(|reason| invalid("tokenizer", reason))?;
        Self::with_table(path_for_errors, tokenizer)
    }

    /// Adds the table of bytes that the tokenizer's decoder means.
    pub(super) fn with_table(
        path_for_errors: &Path,
        tokenizer: tokenizers::Tokenizer,
    ) -> Result<Self, TokenizerError> {
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path_for_errors.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let decoder = tokenizer.get_decoder().map(serde_json::to_value).transpose();
        let decoder = decoder.map_err(|error| invalid("decoder", error.to_string()))?;
        let mut plan = Plan::default();
        match &decoder {
            Some(decoder) => plan.read(decoder).map_err(|value| TokenizerError::Unsupported {
                file: path_for_errors.to_owned(),
                field: "decoder".to_owned(),
                value,
                supported: DECODERS.to_owned(),
            })?,
            // Without a decoder, Hugging Face puts a space between tokens.
            None => {
                plan.steps.push(Step::WordPiece { prefix: String::new() });
                plan.leading_spaces = 1;
            }
        }
        let table = table(&tokenizer, &plan).map_err(|reason| invalid("model.vocab", reason))?;
        Ok(Self::assemble(tokenizer, table, Vec::new(), Vec::new()))
    }
}

impl Plan {
    /// Adds the steps of a decoder, or returns what is not supported.
    fn read(&mut self, decoder: &Value) -> Result<(), String> {
        let kind = decoder.get("type").and_then(Value::as_str).unwrap_or_default();
        let text = |name: &str| decoder.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let count = |name: &str| {
            let number = decoder.get(name).and_then(Value::as_u64).unwrap_or_default();
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        match kind {
            "Sequence" => {
                let steps = decoder.get("decoders").and_then(Value::as_array);
                return steps.into_iter().flatten().try_for_each(|step| self.read(step));
            }
            "Strip" if self.fused => {
                if text("content") != " " || count("stop") != 0 {
                    return Err("Strip of the whole text other than leading spaces".to_owned());
                }
                self.leading_spaces = count("start");
                return Ok(());
            }
            _ if self.fused => return Err(format!("{kind} after Fuse")),
            "Fuse" => self.fused = true,
            "ByteLevel" => self.steps.push(Step::ByteLevel),
            "ByteFallback" => self.steps.push(Step::ByteFallback),
            "Replace" => {
                let pattern = decoder.get("pattern").and_then(|pattern| pattern.get("String"));
                let from = pattern.and_then(Value::as_str).filter(|from| !from.is_empty());
                let from = from.ok_or_else(|| "Replace with a regular expression".to_owned())?.to_owned();
                self.steps.push(Step::Replace { from, to: text("content") });
            }
            "Strip" => {
                let content = text("content").chars().next().unwrap_or(' ');
                self.steps.push(Step::Strip { text: content, start: count("start"), stop: count("stop") });
            }
            "Metaspace" => {
                let from = Some(text("replacement")).filter(|from| !from.is_empty());
                self.steps
                    .push(Step::Replace {
                        from: from.unwrap_or_else(|| "▁".to_owned()), to: " ".to_owned()
                    });
                self.leading_spaces = usize::from(text("prepend_scheme") != "never");
            }
            "WordPiece" => {
                self.steps.push(Step::WordPiece { prefix: text("prefix") });
                self.leading_spaces = 1;
            }
            "BPEDecoder" => self.steps.push(Step::WordEnd { suffix: text("suffix") }),
            _ => return Err(kind.to_owned()),
        }
        Ok(())
    }

    /// Writes what a token stands for.
    fn bytes(&self, token: &str, added: bool, out: &mut Vec<u8>) {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                // An added token stands for its text, which need not be written in the byte alphabet.
                Step::ByteLevel if !added => return byte_level_bytes(&text, out),
                Step::ByteLevel => {}
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return out.push(byte);
                    }
                }
                Step::Replace { from, to } => text = text.replace(from.as_str(), to),
                Step::Strip { text: strip, start, stop } => text = stripped(&text, *strip, *start, *stop),
                Step::WordPiece { prefix } => {
                    text = match text.strip_prefix(prefix.as_str()) {
                        Some(rest) if !prefix.is_empty() => rest.to_owned(),
                        _ => format!(" {text}"),
                    };
                }
                Step::WordEnd { suffix } if !suffix.is_empty() => text = text.replace(suffix.as_str(), " "),
                Step::WordEnd { .. } => {}
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn stripped(text: &str, strip: char, start: usize, stop: usize) -> String {
    let leading: usize = text.chars().take(start).take_while(|c| *c == strip).map(char::len_utf8).sum();
    let rest = &text[leading..];
    let trailing: usize = rest.chars().rev().take(stop).take_while(|c| *c == strip).map(char::len_utf8).sum();
    rest[..rest.len() - trailing].to_owned()
}

fn table(tokenizer: &tokenizers::Tokenizer, plan: &Plan) -> Result<TokenTable, String> {
    let added = tokenizer.get_added_tokens_decoder();
    let vocabulary = tokenizer.get_vocab(true);
    let Some(highest) = vocabulary.values().max().copied() else {
        return Err("the vocabulary is empty".to_owned());
    };
    // Ids may have gaps, but a file of a few tokens must not ask for a table of billions.
    let limit = vocabulary.len().saturating_mul(8).saturating_add(65_536);
    if highest as usize >= limit {
        return Err(format!("id {highest} is far beyond the {} tokens of the vocabulary", vocabulary.len()));
    }
    let mut texts: Vec<Option<&str>> = vec![None; highest as usize + 1];
    for (text, id) in &vocabulary {
        if let Some(slot) = texts.get_mut(*id as usize) {
            // Two texts of one id: the smaller one, so that the outcome does not depend on the order of a hash map.
            *slot = Some(slot.map_or(text.as_str(), |other| other.min(text.as_str())));
        }
    }
    let mut table = TokenTable::default();
    table.leading_spaces = plan.leading_spaces;
    for (id, text) in (0u32..).zip(&texts) {
        let added = added.get(&id);
        let outcome = match (added, text) {
            (Some(token), _) => {
                table.push(&token.content, token.special, |text, out| plan.bytes(text, true, out))
            }
            (None, Some(text)) => table.push(text, false, |text, out| plan.bytes(text, false, out)),
            (None, None) => table.push_absent(),
        };
        outcome.map_err(|_| "more than 4 GiB of text".to_owned())?;
    }
    Ok(table)
}
