//! Incremental decoding: token ids in, whole UTF-8 characters out.
//!
//! Invariant: the pushed pieces and the final piece concatenate to what decoding all ids at once gives.

use std::sync::Arc;

use super::table::TokenTable;

/// Decodes one sequence, token by token. Made by [`super::Tokenizer::decoder`].
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    table: Arc<TokenTable>,
    skip_special: bool,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
    /// Leading spaces that are still to be dropped; 0 once text has begun.
    leading_spaces: usize,
}

impl StreamDecoder {
    pub(crate) fn new(table: Arc<TokenTable>, skip_special: bool) -> Self {
        let leading_spaces = table.leading_spaces;
        Self { table, skip_special, pending: Vec::new(), leading_spaces }
    }

    /// Adds a token and returns the characters that it completes. An id outside the vocabulary stands for nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let mut text = String::new();
        self.push_to(id, &mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Like [`Self::push`], appending to `out`.
    pub fn push_to(&mut self, id: u32, out: &mut String) {
        if self.skip_special && self.table.is_special(id) {
            return;
        }
        let Some(mut bytes) = self.table.bytes(id) else { return };
        while self.leading_spaces > 0 && !bytes.is_empty() {
            if let [b' ', rest @ ..] = bytes {
                bytes = rest;
                self.leading_spaces -= 1;
            } else {
                self.leading_spaces = 0;
            }
        }
        if self.pending.is_empty() {
            let rest = take_characters(bytes, out);
            self.pending.extend_from_slice(rest);
        } else {
            self.pending.extend_from_slice(bytes);
            let joined = std::mem::take(&mut self.pending);
            let rest = take_characters(&joined, out);
            self.pending.extend_from_slice(rest);
        }
    }

    /// Whether bytes of an incomplete character are waiting.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ends the sequence: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> Option<String> {
        self.leading_spaces = self.table.leading_spaces;
        if self.pending.is_empty() {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        Some(String::from_utf8_lossy(&pending).into_owned())
    }
}

/// Appends all complete characters to `out`, invalid bytes as U+FFFD, and returns the incomplete rest (at most three
/// bytes).
fn take_characters<'a>(mut bytes: &'a [u8], out: &mut String) -> &'a [u8] {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return &[];
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(valid));
                let Some(invalid) = error.error_len() else { return rest };
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = rest.get(invalid..).unwrap_or_default();
            }
        }
    }
}
