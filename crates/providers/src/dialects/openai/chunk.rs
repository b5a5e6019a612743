//! The JSON of answers. Fields that nobody reads are not checked, and all may be missing.

use byzerllm_core::{TokenLogprob, Usage, UsageSource};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;

#[derive(Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) id: Value,
    #[serde(default)]
    pub(super) request_id: Value,
    #[serde(default)]
    pub(super) error: Value,
    #[serde(default)]
    pub(super) choices: Option<Vec<WireChoice>>,
    #[serde(default)]
    pub(super) usage: Option<WireUsage>,
}

#[derive(Deserialize)]
pub(super) struct WireChoice {
    #[serde(default)]
    pub(super) index: Option<u32>,
    #[serde(default)]
    pub(super) delta: Option<Said>,
    #[serde(default)]
    pub(super) message: Option<Said>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
    #[serde(default)]
    pub(super) logprobs: Option<WireLogprobs>,
    /// vLLM: the stop string, or the id of a stop token.
    #[serde(default)]
    pub(super) stop_reason: Value,
    /// SGLang: the same.
    #[serde(default)]
    pub(super) matched_stop: Value,
    /// Moonshot reports here.
    #[serde(default)]
    pub(super) usage: Option<WireUsage>,
}

#[derive(Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    pub(super) content: Option<Text>,
    #[serde(default)]
    pub(super) reasoning_content: Option<Text>,
    #[serde(default)]
    pub(super) reasoning: Option<Text>,
    #[serde(default)]
    pub(super) refusal: Option<Text>,
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<WireCall>>,
    #[serde(default)]
    pub(super) function_call: Option<WireFunction>,
}

#[derive(Deserialize)]
pub(super) struct WireCall {
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) function: Option<WireFunction>,
}

#[derive(Default, Deserialize)]
pub(super) struct WireFunction {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) arguments: Arguments,
}

/// Arguments: JSON in a string, or the value itself.
#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(super) enum Arguments {
    Text(String),
    Value(serde_json::Map<String, Value>),
    #[default]
    Nothing,
}

impl Arguments {
    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Value(value) => Value::Object(value).to_string(),
            Self::Nothing => String::new(),
        }
    }
}

/// Text, or a list of parts with texts; anything else is no text.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text or parts")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
                let mut all = String::new();
                while let Some(part) = parts.next_element::<Value>()? {
                    all.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                }
                Ok(Text(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[derive(Deserialize)]
pub(super) struct WireLogprobs {
    #[serde(default)]
    pub(super) content: Option<Vec<WireToken>>,
}

#[derive(Deserialize)]
pub(super) struct WireToken {
    token: String,
    #[serde(default)]
    logprob: Option<f32>,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Option<Vec<WireToken>>,
}

impl From<WireToken> for TokenLogprob {
    fn from(wire: WireToken) -> Self {
        let top = wire.top_logprobs.into_iter().flatten().map(|top| {
            let bytes = top.bytes.unwrap_or_else(|| top.token.into_bytes());
            (Self::NO_ID, bytes, top.logprob.unwrap_or(f32::NEG_INFINITY))
        });
        Self {
            id: Self::NO_ID,
            top: top.collect(),
            bytes: wire.bytes.unwrap_or_else(|| wire.token.into_bytes()),
            logprob: wire.logprob,
        }
    }
}

/// The tokens spent. Numbers are read as what they are, so that a vendor's slip is not a broken answer.
#[derive(Default, Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<f64>,
    #[serde(default)]
    completion_tokens: Option<f64>,
    #[serde(default)]
    total_tokens: Option<f64>,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
    #[serde(default)]
    completion_tokens_details: Option<Details>,
    /// Moonshot.
    #[serde(default)]
    cached_tokens: Option<f64>,
    /// DeepSeek.
    #[serde(default)]
    prompt_cache_hit_tokens: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<f64>,
    #[serde(default)]
    reasoning_tokens: Option<f64>,
}

impl WireUsage {
    /// `None` when the numbers cannot be true, which counts as not reported: no prompt has no tokens, and no text was
    /// generated without any.
    pub(super) fn read(&self, spoke: bool) -> Option<Usage> {
        let count = |number: Option<f64>| match number {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in range, as checked"
            )]
            Some(number) if (0.0..=f64::from(u32::MAX)).contains(&number) => Some(number as u32),
            _ => None,
        };
        let total = count(self.total_tokens).unwrap_or(0);
        let prompt_tokens = count(self.prompt_tokens).filter(|tokens| *tokens > 0).or_else(|| {
            // Embeddings of some vendors have a total alone.
            (self.prompt_tokens.is_none() && !spoke && total > 0).then_some(total)
        })?;
        // Where reasoning is counted apart, the total still holds it.
        let completion_tokens =
            count(self.completion_tokens).unwrap_or(0).max(total.saturating_sub(prompt_tokens));
        if spoke && completion_tokens == 0 {
            return None;
        }
        let prompt = self.prompt_tokens_details.as_ref();
        let completion = self.completion_tokens_details.as_ref();
        let cached = prompt
            .and_then(|details| details.cached_tokens)
            .or(self.prompt_cache_hit_tokens)
            .or(self.cached_tokens);
        let reasoning = completion.and_then(|details| details.reasoning_tokens);
        Some(Usage {
            prompt_tokens,
            cached_tokens: count(cached).unwrap_or(0).min(prompt_tokens),
            cache_written_tokens: 0,
            completion_tokens,
            reasoning_tokens: count(reasoning).unwrap_or(0).min(completion_tokens),
            source: UsageSource::Reported,
        })
    }
}
