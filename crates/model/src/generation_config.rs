//! What a checkpoint says about generation: sampling defaults and the tokens that begin and end a text.

use std::path::Path;

use byzerllm_core::Sampling;
use serde_json::{Map, Value as Json};

use crate::arch::fields::Fields;
use crate::load_error::{LoadError, LoadResult};

/// Generation defaults of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// The sampling parameters that the checkpoint sets.
    pub sampling: Sampling,
    /// The tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Whether it names the tokens before questions and answers: Baichuan's chat models do, their base models do not.
    pub marks_turns: bool,
}

impl GenerationConfig {
    /// Reads the contents of `generation_config.json`.
    pub(crate) fn from_json(path: &Path, values: &Map<String, Json>) -> LoadResult<Self> {
        let fields = Fields::json(path, values);
        let greedy = fields.has("do_sample") && !fields.flag("do_sample", true)?;
        let top_k = fields.number("top_k")?.and_then(|top_k| u32::try_from(top_k).ok());
        let sampling = Sampling {
            temperature: if greedy { Some(0.0) } else { fields.float("temperature")? },
            top_p: fields.float("top_p")?,
            top_k,
            min_p: fields.float("min_p")?,
            ..Sampling::default()
        };
        sampling.validate().map_err(|error| {
            LoadError::malformed(
                path,
                error.param().unwrap_or("sampling").to_owned(),
                error.message().to_owned(),
            )
        })?;
        Ok(Self {
            sampling,
            eos_token_ids: fields.token_ids("eos_token_id")?,
            bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
            marks_turns: fields.has("user_token_id") && fields.has("assistant_token_id"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> LoadResult<GenerationConfig> {
        let values: Map<String, Json> = serde_json::from_str(text).unwrap();
        GenerationConfig::from_json(Path::new("generation_config.json"), &values)
    }

    #[test]
    fn only_an_explicit_do_sample_false_is_greedy() {
        assert_eq!(read(r#"{"temperature": 0.6}"#).unwrap().sampling.temperature, Some(0.6));
        assert_eq!(read(r#"{"do_sample": true, "top_k": 20}"#).unwrap().sampling.temperature, None);
        let greedy = read(r#"{"do_sample": false, "temperature": 0.6}"#).unwrap();
        assert_eq!(greedy.sampling.temperature, Some(0.0));
    }

    #[test]
    fn end_tokens_are_one_or_many() {
        assert_eq!(read(r#"{"eos_token_id": 2}"#).unwrap().eos_token_ids, [2]);
        assert_eq!(read(r#"{"eos_token_id": [2, 7], "bos_token_id": -1}"#).unwrap().eos_token_ids, [2, 7]);
        assert!(read(r#"{"eos_token_id": "two"}"#).unwrap_err().to_string().contains("eos_token_id"));
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let error = read(r#"{"top_p": 7}"#).unwrap_err().to_string();
        assert!(error.contains("generation_config.json") && error.contains("top_p"), "{error}");
    }
}
