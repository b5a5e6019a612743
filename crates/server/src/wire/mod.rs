//! The JSON of OpenAI's API, of Anthropic's and of our own, in and out. Nothing here knows HTTP or the runtime.

pub(crate) mod adapters;
pub(crate) mod anthropic;
pub(crate) mod chat;
pub(crate) mod chat_answer;
pub(crate) mod common;
pub(crate) mod completions;
pub(crate) mod completions_answer;
pub(crate) mod describe;
pub(crate) mod embeddings;
pub(crate) mod error;
pub(crate) mod extra;
pub(crate) mod fields;
pub(crate) mod health;
pub(crate) mod image;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod logprobs;
pub(crate) mod message;
pub(crate) mod models;
pub(crate) mod native;
pub(crate) mod notes;
pub(crate) mod rerank;
pub(crate) mod responses;
pub(crate) mod sampling;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod score;
pub(crate) mod sequence;
pub(crate) mod tokens;
pub(crate) mod tools;

use std::time::{SystemTime, UNIX_EPOCH};

use byzerllm_core::Usage;
use schemars::JsonSchema;
use serde::Serialize;

/// What clients may compare to see that the server changed.
pub(crate) const FINGERPRINT: &str = concat!("byzerllm-", env!("CARGO_PKG_VERSION"));

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// The tokens spent.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CompletionUsage")]
pub(crate) struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct PromptDetails {
    /// Tokens that came from the cache of prefixes.
    cached_tokens: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct CompletionDetails {
    /// Tokens that are reasoning.
    reasoning_tokens: u64,
}

impl WireUsage {
    /// The sum over the prompts of a call.
    pub(crate) fn sum<'a>(usages: impl IntoIterator<Item = &'a Usage>) -> Self {
        let (mut prompt, mut cached, mut completion, mut reasoning) = (0, 0, 0, 0);
        for usage in usages {
            prompt += u64::from(usage.prompt_tokens);
            cached += u64::from(usage.cached_tokens);
            completion += u64::from(usage.completion_tokens);
            reasoning += u64::from(usage.reasoning_tokens);
        }
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
            prompt_tokens_details: PromptDetails { cached_tokens: cached },
            completion_tokens_details: CompletionDetails { reasoning_tokens: reasoning },
        }
    }
}
