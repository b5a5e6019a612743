//! Texts and pairs of texts as an encoder wants them: prompt, special tokens, token types, and a cut on request.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Result};

use super::{EncoderConfig, EncoderInput, EncoderSettings};
use crate::load_error::LoadResult;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::segments::Template;

/// A text or a pair of texts as ids, with the model's special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedInput {
    /// Token ids.
    pub ids: Vec<u32>,
    /// As many token types.
    pub types: Vec<u8>,
    /// Tokens before anything was cut.
    pub length: usize,
    /// Where the tokens of the text lie, or those of two texts in order.
    texts: Vec<Range<usize>>,
}

impl EncodedInput {
    fn new(template: &Template, texts: &[&[u32]]) -> Self {
        let length = template.special.len() + texts.iter().map(|text| text.len()).sum::<usize>();
        let (mut ids, mut types) = (Vec::with_capacity(length), Vec::with_capacity(length));
        let mut ranges = Vec::with_capacity(texts.len());
        let mut special = template.special.iter();
        let mut written = 0;
        for (text, &(before, kind)) in texts.iter().zip(&template.texts) {
            for &(id, kind) in special.by_ref().take(before - written) {
                ids.push(id);
                types.push(kind);
            }
            written = before;
            ranges.push(ids.len()..ids.len() + text.len());
            ids.extend_from_slice(text);
            types.resize(ids.len(), kind);
        }
        for &(id, kind) in special {
            ids.push(id);
            types.push(kind);
        }
        Self { ids, types, length, texts: ranges }
    }

    /// The input of a network.
    #[must_use]
    pub fn as_input(&self) -> EncoderInput<'_> {
        EncoderInput { ids: &self.ids, types: &self.types }
    }

    /// Cuts the input to `limit` tokens, special ones included, and says how many were cut. Special tokens stay. Of a
    /// pair the longer text is cut, and both to halves when that is not enough, as Hugging Face's `longest_first`.
    ///
    /// # Errors
    /// `InvalidRequest` when the special tokens alone are more than `limit`.
    pub fn truncate(&mut self, limit: usize) -> Result<usize> {
        let excess = self.ids.len().saturating_sub(limit);
        if excess == 0 {
            return Ok(0);
        }
        let lengths: Vec<usize> = self.texts.iter().map(Range::len).collect();
        let special = self.ids.len() - lengths.iter().sum::<usize>();
        let Some(room) = limit.checked_sub(special) else {
            let message = format!("{limit} tokens cannot hold the {special} special tokens of an input");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        };
        let kept = match lengths[..] {
            [first, second] => longest_first(first, second, room).to_vec(),
            _ => vec![room],
        };
        let mut cut = 0;
        for (range, kept) in self.texts.iter_mut().zip(kept) {
            let start = range.start - cut;
            let (keeps_to, ends) = (start + kept.min(range.len()), range.end - cut);
            self.ids.drain(keeps_to..ends);
            self.types.drain(keeps_to..ends);
            *range = start..keeps_to;
            cut += ends - keeps_to;
        }
        Ok(cut)
    }
}

/// How many tokens two texts of the given lengths keep when there is less room than they need.
fn longest_first(first: usize, second: usize, room: usize) -> [usize; 2] {
    let short = first.min(second);
    // The half that is larger by one belongs to the longer text, or to the second of two equal ones.
    let (short, long) = if 2 * short <= room { (short, room - short) } else { (room / 2, room - room / 2) };
    if first <= second { [short, long] } else { [long, short] }
}

/// An encoder's tokenizer with its prompts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EncoderTokenizer {
    tokenizer: Tokenizer,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    single: Template,
    /// Absent when the tokenizer cannot put two texts together.
    pair: Option<Template>,
    prompts: BTreeMap<String, String>,
    default_prompt: Option<String>,
    lowercase: bool,
    vocab_size: usize,
}

impl EncoderTokenizer {
    pub(super) fn new(
        tokenizer: Tokenizer,
        config: &EncoderConfig,
        settings: &EncoderSettings,
    ) -> LoadResult<Self> {
        // A network without types reads zeros, whatever its tokenizer says.
        let typed = |mut template: Template| {
            if config.token_types <= 1 {
                template.special.iter_mut().for_each(|(_, kind)| *kind = 0);
                template.texts.iter_mut().for_each(|(_, kind)| *kind = 0);
            }
            template
        };
        let shared = Shared {
            single: typed(tokenizer.join_template(1)?),
            pair: tokenizer.join_template(2).ok().map(typed),
            prompts: settings.prompts.clone(),
            default_prompt: settings.default_prompt.clone(),
            lowercase: settings.lowercase,
            vocab_size: config.vocab_size,
        };
        Ok(Self { tokenizer, shared: Arc::new(shared) })
    }

    /// The tokenizer below.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A text with the prompt of this name before it, or the checkpoint's default prompt when there is one. An empty
    /// name means no prompt.
    ///
    /// # Errors
    /// `InvalidRequest` for a prompt that the model does not have and a text that cannot be tokenized.
    pub fn text(&self, text: &str, prompt: Option<&str>) -> Result<EncodedInput> {
        let prompt = match prompt.or(self.shared.default_prompt.as_deref()) {
            None | Some("") => "",
            Some(name) => self.shared.prompts.get(name).ok_or_else(|| self.unknown_prompt(name))?,
        };
        let ids = match prompt {
            "" => self.ids(text)?,
            prompt => self.ids(&format!("{prompt}{text}"))?,
        };
        Ok(EncodedInput::new(&self.shared.single, &[&ids]))
    }

    /// Tokens that the caller made, without special ones: those of the model are added, prompts are not.
    ///
    /// # Errors
    /// `InvalidRequest` for an id that the model does not have.
    pub fn tokens(&self, ids: &[u32]) -> Result<EncodedInput> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.shared.vocab_size) {
            let message = format!("token {id} is not one of the model's {}", self.shared.vocab_size);
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(EncodedInput::new(&self.shared.single, &[ids]))
    }

    /// A pair of texts.
    ///
    /// # Errors
    /// `InvalidRequest` for a text that cannot be tokenized, `Unsupported` when the tokenizer cannot join two texts.
    pub fn pair(&self, query: &str, passage: &str) -> Result<EncodedInput> {
        let Some(template) = &self.shared.pair else {
            let message = "the model's tokenizer does not say how to join two texts";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let (first, second) = (self.ids(query)?, self.ids(passage)?);
        Ok(EncodedInput::new(template, &[&first, &second]))
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(match self.shared.lowercase {
            true => self.tokenizer.encode(&text.to_lowercase(), false)?,
            false => self.tokenizer.encode(text, false)?,
        })
    }

    fn unknown_prompt(&self, name: &str) -> Error {
        let known: Vec<&str> = self.shared.prompts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Error::new(ErrorKind::InvalidRequest, format!("the model has no prompt {name:?}; it has {known}"))
            .with_param("prompt")
    }
}
