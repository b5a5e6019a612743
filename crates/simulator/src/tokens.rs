//! How the simulated models count tokens. A real tokenizer would hide mistakes behind big tables; this rule is checked by
//! hand: four bytes make a token, the last one may be shorter.

use serde::Serialize;

/// Tokens that the frame of one message costs on top of its text. Even an empty message has more bytes than that on the
/// wire of every vendor.
pub(crate) const PER_MESSAGE: u64 = 3;

/// Tokens that a picture costs, however large it is.
pub(crate) const PER_IMAGE: u64 = 16;

/// The tokens of a text: its UTF-8 bytes divided by four, rounded up. Never more than its bytes.
#[must_use]
pub fn count(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// The beginning of a text that is no more than so many tokens, cut between characters.
#[must_use]
pub(crate) fn clip(text: &str, tokens: u64) -> &str {
    let bytes = usize::try_from(tokens.saturating_mul(4)).unwrap_or(usize::MAX);
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tokens {
    /// Of the prompt, cached ones included. Never more than the bytes of the request's body.
    pub prompt: u64,
    /// Of the prompt, those that came from the vendor's cache.
    pub cached: u64,
    /// Generated, in all choices, reasoning included. Never more than the bytes of the whole answer.
    pub completion: u64,
    /// Generated as reasoning.
    pub reasoning: u64,
}

impl Tokens {
    /// Prompt and completion.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.prompt + self.completion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_are_a_token() {
        assert_eq!([count(""), count("a"), count("abcd"), count("abcde"), count("你好")], [0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_clipped_text_ends_between_characters() {
        assert_eq!((clip("你好世界", 1), clip("你好世界", 3), clip("abc", 9)), ("你", "你好世界", "abc"));
    }
}
