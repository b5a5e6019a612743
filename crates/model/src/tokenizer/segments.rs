//! Where a tokenizer puts one text or two among its special tokens, learnt once so that texts can be cut afterwards.

use tokenizers::{Encoding, Token};

use super::{Tokenizer, TokenizerError, guarded};

/// The special tokens around one text or two, and where the texts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Special tokens with their types, in order, without the texts.
    pub(crate) special: Vec<(u32, u8)>,
    /// For each text: how many special tokens come before it, and the type of its tokens.
    pub(crate) texts: Vec<(usize, u8)>,
}

impl Tokenizer {
    /// The template of `texts` texts, which is 1 or 2.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the post-processor does not keep the texts whole and in order.
    pub(crate) fn join_template(&self, texts: usize) -> Result<Template, TokenizerError> {
        let inner = &self.inner;
        // Ids that no vocabulary has stand for the texts.
        let mark = |index: usize| u32::MAX - index as u32;
        let encoding = |index: usize| {
            Encoding::from_tokens(vec![Token::new(mark(index), String::new(), (0, 0))], index as u32)
        };
        let pair = (texts == 2).then(|| encoding(1));
        let encoded = guarded(|| inner.tokenizer.post_process(encoding(0), pair, true))
            .map_err(TokenizerError::Encode)?;
        let wrong = |reason: &str| TokenizerError::Encode(format!("the tokenizer's post-processor {reason}"));
        let mut template = Template { special: Vec::new(), texts: Vec::new() };
        let around = |ids: &[u32]| ids.iter().map(|id| (*id, 0)).collect::<Vec<_>>();
        template.special.extend(around(&inner.prefix));
        for (&id, &kind) in encoded.get_ids().iter().zip(encoded.get_type_ids()) {
            let kind = u8::try_from(kind).map_err(|_| wrong("gives a token type above 255"))?;
            match (0..texts).find(|index| mark(*index) == id) {
                Some(index) if index == template.texts.len() => {
                    template.texts.push((template.special.len(), kind));
                }
                Some(_) => return Err(wrong("changes the order of texts or repeats one")),
                None => template.special.push((id, kind)),
            }
        }
        template.special.extend(around(&inner.suffix));
        if template.texts.len() != texts {
            return Err(wrong("leaves a text out"));
        }
        Ok(template)
    }
}
