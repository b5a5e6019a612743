//! What the routes of encoders have in common: how long texts are cut, and what a score means.

use byzerllm_core::{Error, Result, ScoreScale, Usage};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// The parameter of our own encoders that bounds the tokens of an input.
const MAX_LENGTH: &str = "max_length";

/// Whether long inputs are cut, from our word and from vLLM's, which goes to the model as a parameter of its own.
///
/// # Errors
/// A number of tokens that makes no sense, or words that contradict each other.
pub(crate) fn truncation(
    truncate: Option<bool>,
    tokens: Option<i64>,
    extra: &mut Map<String, Value>,
) -> Result<bool> {
    const NAME: &str = "truncate_prompt_tokens";
    let Some(tokens) = tokens else { return Ok(truncate.unwrap_or(false)) };
    if truncate == Some(false) {
        return Err(Error::invalid(NAME, format!("`{NAME}` cuts inputs, and `truncate: false` forbids it")));
    }
    match tokens {
        -1 => {}
        1.. => {
            if extra.insert(MAX_LENGTH.to_owned(), tokens.into()).is_some() {
                let message = format!("`{NAME}` and `{MAX_LENGTH}` say the same; send one of them");
                return Err(Error::invalid(NAME, message));
            }
        }
        _ => {
            let message = format!("`{NAME}` must be at least 1, or -1 for what the model reads at most");
            return Err(Error::invalid(NAME, message));
        }
    }
    Ok(true)
}

/// The scale that is asked for, in our word or in vLLM's.
///
/// # Errors
/// An unknown word, or two that contradict each other.
pub(crate) fn asked(scale: Option<&str>, use_activation: Option<bool>) -> Result<Option<ScoreScale>> {
    let word = scale.map(str::parse::<ScoreScale>).transpose()?;
    let switch = use_activation.map(|on| if on { ScoreScale::Probability } else { ScoreScale::Logit });
    match (word, switch) {
        (Some(word), Some(switch)) if word != switch => {
            let message = format!(
                "`use_activation` asks for the scale '{}', and `scale` for '{}'; send one of them",
                switch.as_str(),
                word.as_str()
            );
            Err(Error::invalid("use_activation", message))
        }
        (word, switch) => Ok(word.or(switch)),
    }
}

/// The tokens spent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EncoderUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl From<&Usage> for EncoderUsage {
    fn from(usage: &Usage) -> Self {
        let prompt_tokens = u64::from(usage.prompt_tokens);
        Self { prompt_tokens, total_tokens: prompt_tokens + u64::from(usage.completion_tokens) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_for_one_thing_must_agree() {
        let (logit, probability) = (ScoreScale::Logit, ScoreScale::Probability);
        assert_eq!(asked(None, None).unwrap(), None);
        assert_eq!(asked(Some("probability"), Some(true)).unwrap(), Some(probability));
        assert_eq!(asked(None, Some(false)).unwrap(), Some(logit));
        assert_eq!(asked(Some("logit"), Some(true)).unwrap_err().param(), Some("use_activation"));
        assert_eq!(asked(Some("raw"), None).unwrap_err().param(), Some("scale"));
        let mut extra = Map::new();
        assert!(truncation(None, Some(-1), &mut extra).unwrap() && extra.is_empty());
        assert!(truncation(Some(true), Some(9), &mut extra).unwrap());
        assert_eq!(extra["max_length"], 9);
        for (truncate, tokens) in [(None, Some(0)), (None, Some(-2)), (Some(false), Some(3)), (None, Some(4))]
        {
            let error = truncation(truncate, tokens, &mut extra).unwrap_err();
            assert_eq!(error.param(), Some("truncate_prompt_tokens"), "{truncate:?} {tokens:?}");
        }
    }
}
