//! Sampling parameters and where their effective values come from.
//!
//! Precedence: request, then deployment defaults, then the checkpoint's `generation_config.json`, then the defaults
//! of the front end. [`resolve`] applies it and remembers the origin of every value.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Sampling parameters, each optional.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy; at most 2 by convention, any finite non-negative value is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub temperature: Option<f32>,
    /// Nucleus: keep the smallest set of tokens whose probability reaches this, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f32>,
    /// Keep the `k` most likely tokens; 0 keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Keep tokens at least this fraction as likely as the most likely one, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f32>,
    /// Same seed, same text; choice `i` uses a seed derived from it and `i`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// New tokens at most; absent means up to the end of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Texts that end the generation; they are not part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = Self::MAX_STOP), inner(length(min = 1, max = Self::MAX_STOP_BYTES)))]
    pub stop: Option<Vec<String>>,
    /// Tokens that end the generation, beside the model's own end tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_token_ids: Option<Vec<u32>>,
    /// Subtracted from a token's logit once when it is in the generated text, in [-2, 2].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2.0, max = 2.0))]
    pub presence_penalty: Option<f32>,
    /// Subtracted from a token's logit for each time it is in the generated text, in [-2, 2].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2.0, max = 2.0))]
    pub frequency_penalty: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the generated text
    /// (arXiv:1909.05858); above 0, 1 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0))]
    pub repetition_penalty: Option<f32>,
    /// Added to the logits of these tokens, each in [-100, 100].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = Self::MAX_LOGIT_BIAS))]
    pub logit_bias: Option<BTreeMap<u32, f32>>,
    /// Go on after the model's own end tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_end: Option<bool>,
    /// No end token and no stop string before so many new tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u32>,
    /// Report log probabilities of generated tokens; `Some(k)` adds the `k` most likely alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = Self::MAX_LOGPROBS))]
    pub logprobs: Option<u32>,
}

/// Defaults for a deployment or a front end: the same fields.
pub type GenerationDefaults = Sampling;

/// Where an effective value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The request itself.
    Request,
    /// The deployment's defaults.
    Deployment,
    /// The checkpoint's `generation_config.json`.
    Checkpoint,
    /// The front end's defaults.
    FrontEnd,
}

/// What the OpenAI API promises: temperature 1, top_p 1, to the context's end.
pub static OPENAI_DEFAULTS: GenerationDefaults =
    GenerationDefaults { temperature: Some(1.0), top_p: Some(1.0), ..Sampling::UNSET };

/// What programs written against Byzer-LLM expect: temperature 0.9, top_p 0.7, 1024 new tokens.
pub static LEGACY_DEFAULTS: GenerationDefaults = GenerationDefaults {
    temperature: Some(0.9),
    top_p: Some(0.7),
    max_tokens: Some(1024),
    ..Sampling::UNSET
};

/// Effective sampling parameters with the origin of each one that is set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
    /// The effective values.
    pub sampling: Sampling,
    /// Parameter name and origin, in declaration order.
    pub origins: Vec<(&'static str, Origin)>,
}

/// Merges layers of defaults, the first layer that sets a value wins, and validates the result.
///
/// # Errors
/// [`crate::ErrorKind::InvalidRequest`] naming the parameter that is out of range.
pub fn resolve(layers: &[(Origin, &Sampling)]) -> Result<Resolved> {
    let mut origins = Vec::new();
    macro_rules! pick {
        ($field:ident) => {
            layers.iter().find_map(|(origin, layer)| {
                let value = layer.$field.clone()?;
                origins.push((stringify!($field), *origin));
                Some(value)
            })
        };
    }
    let sampling = Sampling {
        temperature: pick!(temperature),
        top_p: pick!(top_p),
        top_k: pick!(top_k),
        min_p: pick!(min_p),
        seed: pick!(seed),
        max_tokens: pick!(max_tokens),
        stop: pick!(stop),
        stop_token_ids: pick!(stop_token_ids),
        presence_penalty: pick!(presence_penalty),
        frequency_penalty: pick!(frequency_penalty),
        repetition_penalty: pick!(repetition_penalty),
        logit_bias: pick!(logit_bias),
        ignore_end: pick!(ignore_end),
        min_tokens: pick!(min_tokens),
        logprobs: pick!(logprobs),
    };
    sampling.validate()?;
    Ok(Resolved { sampling, origins })
}

impl Sampling {
    /// Nothing set: `default()` for constants.
    pub const UNSET: Self = Self {
        temperature: None,
        top_p: None,
        top_k: None,
        min_p: None,
        seed: None,
        max_tokens: None,
        stop: None,
        stop_token_ids: None,
        presence_penalty: None,
        frequency_penalty: None,
        repetition_penalty: None,
        logit_bias: None,
        ignore_end: None,
        min_tokens: None,
        logprobs: None,
    };

    /// The most stop strings a request may carry.
    pub const MAX_STOP: usize = 16;
    /// The longest stop string, in bytes.
    pub const MAX_STOP_BYTES: usize = 1024;
    /// The most biased tokens.
    pub const MAX_LOGIT_BIAS: usize = 1024;
    /// The most alternatives per token.
    pub const MAX_LOGPROBS: u32 = 20;

    /// Checks ranges.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidRequest`] naming the parameter.
    pub fn validate(&self) -> Result<()> {
        let in_range =
            |name: &'static str, value: Option<f32>, ok: fn(f32) -> bool, range: &'static str| match value {
                Some(value) if !(value.is_finite() && ok(value)) => {
                    Err(Error::invalid(name, format!("{name} must be {range}, got {value}")))
                }
                _ => Ok(()),
            };
        in_range("temperature", self.temperature, |v| v >= 0.0, "at least 0")?;
        in_range("top_p", self.top_p, |v| v > 0.0 && v <= 1.0, "above 0 and at most 1")?;
        in_range("min_p", self.min_p, |v| (0.0..=1.0).contains(&v), "between 0 and 1")?;
        let around_zero: fn(f32) -> bool = |v| (-2.0..=2.0).contains(&v);
        in_range("presence_penalty", self.presence_penalty, around_zero, "between -2 and 2")?;
        in_range("frequency_penalty", self.frequency_penalty, around_zero, "between -2 and 2")?;
        in_range(
            "repetition_penalty",
            self.repetition_penalty,
            |v| v > 0.0 && v <= 100.0,
            "above 0 and at most 100",
        )?;
        if let Some(bias) = &self.logit_bias {
            if bias.len() > Self::MAX_LOGIT_BIAS {
                let (max, got) = (Self::MAX_LOGIT_BIAS, bias.len());
                return Err(Error::invalid(
                    "logit_bias",
                    format!("at most {max} biases are allowed, got {got}"),
                ));
            }
            for value in bias.values() {
                in_range(
                    "logit_bias",
                    Some(*value),
                    |v| (-100.0..=100.0).contains(&v),
                    "between -100 and 100",
                )?;
            }
        }
        if let Some(stop) = &self.stop {
            if stop.len() > Self::MAX_STOP {
                let (max, got) = (Self::MAX_STOP, stop.len());
                return Err(Error::invalid(
                    "stop",
                    format!("at most {max} stop strings are allowed, got {got}"),
                ));
            }
            if stop.iter().any(|text| text.is_empty() || text.len() > Self::MAX_STOP_BYTES) {
                let max = Self::MAX_STOP_BYTES;
                return Err(Error::invalid("stop", format!("a stop string must have 1 to {max} bytes")));
            }
        }
        if self.logprobs.is_some_and(|k| k > Self::MAX_LOGPROBS) {
            let max = Self::MAX_LOGPROBS;
            return Err(Error::invalid("top_logprobs", format!("top_logprobs must be at most {max}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_that_sets_a_value_wins() {
        let request = Sampling { temperature: Some(0.0), ..Sampling::default() };
        let deployment = Sampling { temperature: Some(0.5), top_k: Some(3), ..Sampling::default() };
        let resolved = resolve(&[
            (Origin::Request, &request),
            (Origin::Deployment, &deployment),
            (Origin::FrontEnd, &LEGACY_DEFAULTS),
        ])
        .unwrap();
        assert_eq!(resolved.sampling.temperature, Some(0.0));
        assert_eq!(resolved.sampling.top_k, Some(3));
        assert_eq!(resolved.sampling.max_tokens, Some(1024));
        assert_eq!(
            resolved.origins,
            [
                ("temperature", Origin::Request),
                ("top_p", Origin::FrontEnd),
                ("top_k", Origin::Deployment),
                ("max_tokens", Origin::FrontEnd)
            ]
        );
    }

    #[test]
    fn ranges_are_checked_by_name() {
        for (sampling, name) in [
            (Sampling { temperature: Some(f32::NAN), ..Sampling::default() }, "temperature"),
            (Sampling { top_p: Some(0.0), ..Sampling::default() }, "top_p"),
            (Sampling { min_p: Some(1.5), ..Sampling::default() }, "min_p"),
            (Sampling { stop: Some(vec![String::new()]), ..Sampling::default() }, "stop"),
            (Sampling { logprobs: Some(21), ..Sampling::default() }, "top_logprobs"),
        ] {
            assert_eq!(sampling.validate().unwrap_err().param(), Some(name));
        }
    }
}
