//! Log probabilities in the two shapes of the OpenAI API.

use std::fmt::Write as _;

use byzerllm_core::TokenLogprob;
use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// JSON has no minus infinity; OpenAI writes this for "practically impossible".
const IMPOSSIBLE: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// The token as text; a piece of a character is written `bytes:\xe4\xbd`, as OpenAI does.
fn token_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
            let _infallible = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}

/// Log probabilities of the tokens of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

/// A token.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatTokenLogprob")]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopToken>,
}

/// A token that could have been taken.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TopTokenLogprob")]
struct TopToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<Vec<TokenLogprob>> for ChatLogprobs {
    fn from(tokens: Vec<TokenLogprob>) -> Self {
        let top = |(_, bytes, logprob): (u32, Vec<u8>, f32)| TopToken {
            token: token_text(&bytes),
            logprob: finite(logprob),
            bytes,
        };
        let content = tokens
            .into_iter()
            .map(|token| ChatToken {
                token: token_text(&token.bytes),
                logprob: token.logprob.map_or(0.0, finite),
                bytes: token.bytes,
                top_logprobs: token.top.into_iter().map(top).collect(),
            })
            .collect();
        Self { content, refusal: None }
    }
}

/// The shape of the completions route. `text_offset` counts characters from the start of the choice's own `text`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    /// One map per token, or nothing when no alternatives were asked for.
    top_logprobs: Option<Vec<Option<TopMap>>>,
    text_offset: Vec<u64>,
}

/// Token to log probability, best first; the token that was taken is always in it.
#[derive(Debug, JsonSchema)]
#[schemars(inline, with = "std::collections::BTreeMap<String, f32>")]
struct TopMap(Vec<(String, f32)>);

impl Serialize for TopMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

impl TopMap {
    fn new(token: &str, logprob: f32, top: Vec<(u32, Vec<u8>, f32)>) -> Self {
        let mut list: Vec<(String, f32)> = Vec::with_capacity(top.len() + 1);
        let taken = (token.to_owned(), logprob);
        let all = top.into_iter().map(|(_, bytes, logprob)| (token_text(&bytes), finite(logprob)));
        for entry in all.chain([taken]) {
            // Different tokens can have the same text; the likelier one comes first and stays.
            if !list.iter().any(|(text, _)| *text == entry.0) {
                list.push(entry);
            }
        }
        Self(list)
    }
}

/// Places tokens in the text of one choice, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    characters: u64,
}

impl Offsets {
    /// The log probabilities of a piece of text and its tokens. `top` is how many alternatives were asked for.
    pub(crate) fn piece(&mut self, text: &str, tokens: Vec<TokenLogprob>, top: u32) -> CompletionLogprobs {
        let mut logprobs = CompletionLogprobs::default();
        let mut maps = Vec::new();
        let mut place = Place { text: text.as_bytes(), at: 0, characters: self.characters };
        for token in tokens {
            logprobs.text_offset.push(place.take(&token.bytes));
            let text = token_text(&token.bytes);
            let logprob = token.logprob.map(finite);
            maps.push(logprob.map(|logprob| TopMap::new(&text, logprob, token.top)));
            logprobs.tokens.push(text);
            logprobs.token_logprobs.push(logprob);
        }
        logprobs.top_logprobs = (top > 0).then_some(maps);
        self.skip(text);
        logprobs
    }

    /// A piece without tokens.
    pub(crate) fn skip(&mut self, text: &str) {
        self.characters += text.chars().count() as u64;
    }
}

/// A position in a piece of text. Tokens need not add up to the text: markers that are not shown, a space that the
/// tokenizer put in front, a stop string that cut the last token.
struct Place<'a> {
    text: &'a [u8],
    at: usize,
    characters: u64,
}

impl Place<'_> {
    /// How far a token may be from where it is expected.
    const WINDOW: usize = 8;

    /// The offset of a token; moves behind it.
    fn take(&mut self, token: &[u8]) -> u64 {
        let rest = &self.text[self.at..];
        let bare = token.strip_prefix(b" ").unwrap_or(token);
        let (skip, length) = if token.is_empty() {
            (0, 0)
        } else if rest.starts_with(token) {
            (0, token.len())
        } else if !bare.is_empty() && rest.starts_with(bare) {
            (0, bare.len())
        } else if token.starts_with(rest) {
            (0, rest.len())
        } else {
            let near =
                (1..=Self::WINDOW).find(|&skip| rest.get(skip..).is_some_and(|r| r.starts_with(token)));
            (near.unwrap_or(0), near.map_or(0, |_| token.len()))
        };
        self.advance(skip);
        let inside = self.text.get(self.at).is_some_and(|byte| continues(*byte));
        let offset = self.characters - u64::from(inside && self.at > 0);
        self.advance(length);
        offset
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.characters += passed.iter().filter(|byte| !continues(**byte)).count() as u64;
        self.at += bytes;
    }
}

/// Whether a byte continues a character.
fn continues(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &[u8]) -> TokenLogprob {
        TokenLogprob { id: 1, bytes: bytes.to_vec(), logprob: Some(-1.0), top: Vec::new() }
    }

    fn offsets(pieces: &[(&str, &[&[u8]])]) -> Vec<u64> {
        let mut offsets = Offsets::default();
        pieces
            .iter()
            .flat_map(|(text, tokens)| {
                offsets.piece(text, tokens.iter().map(|bytes| token(bytes)).collect(), 0).text_offset
            })
            .collect()
    }

    #[test]
    fn offsets_count_characters() {
        assert_eq!(offsets(&[("ab cd", &[b"ab", b" cd"])]), [0, 2]);
        assert_eq!(offsets(&[("你好!", &["你".as_bytes(), "好".as_bytes(), b"!"])]), [0, 1, 2]);
        // Characters cut over tokens, within one piece and over pieces.
        assert_eq!(offsets(&[("a你b", &[b"a", b"\xe4", b"\xbd\xa0", b"b"])]), [0, 1, 1, 2]);
        assert_eq!(offsets(&[("", &[b"\xe4"]), ("你好", &[b"\xbd\xa0", "好".as_bytes()])]), [0, 0, 1]);
        // A marker that is not part of the text, a space that the tokenizer added, a cut last token.
        assert_eq!(offsets(&[("Hello you", &[b"<s>", b" Hello", b" you"])]), [0, 0, 5]);
        assert_eq!(offsets(&[("one two", &[b"one", b" two. Stop"])]), [0, 3]);
        assert_eq!(offsets(&[("one", &[b"one"]), (" two", &[b" two"])]), [0, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_cut_of_a_text_gives_offsets_within_it(
            text in "[a-c你😀 ]{0,12}",
            cuts in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            let tokens: Vec<_> = cuts.windows(2).map(|pair| token(&bytes[pair[0]..pair[1]])).collect();
            let expected: Vec<u64> = cuts.windows(2).map(|pair| {
                let start = (0..=pair[0]).rev().find(|&at| text.is_char_boundary(at)).unwrap();
                text[..start].chars().count() as u64
            }).collect();
            let logprobs = Offsets::default().piece(&text, tokens, 0);
            proptest::prop_assert_eq!(logprobs.text_offset, expected);
        }
    }

    #[test]
    fn pieces_of_characters_and_impossible_tokens_can_be_written() {
        let mut tokens = vec![token(b"\xe4\xbd")];
        tokens[0].top = vec![(1, b"\xe4\xbd".to_vec(), f32::NEG_INFINITY)];
        let chat = serde_json::to_value(ChatLogprobs::from(tokens.clone())).unwrap();
        assert_eq!(chat["content"][0]["token"], "bytes:\\xe4\\xbd");
        assert_eq!(chat["content"][0]["bytes"], serde_json::json!([0xe4, 0xbd]));
        assert_eq!(chat["content"][0]["top_logprobs"][0]["logprob"], -9999.0);
        let completion = serde_json::to_value(Offsets::default().piece("", tokens, 1)).unwrap();
        assert_eq!(completion["top_logprobs"][0], serde_json::json!({"bytes:\\xe4\\xbd": -9999.0}));
    }
}
