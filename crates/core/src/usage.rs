//! Token accounting of one request.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the numbers of a [`Usage`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The vendor reported them.
    Reported,
    /// Our own engine counted them.
    #[default]
    Counted,
    /// The vendor was silent: an upper bound, from the length of the request and of the answer.
    Estimated,
    /// Nobody knows.
    Unknown,
}

/// The tokens that a request consumed. With `n` choices the prompt counts once and completions add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u32,
    /// Prompt tokens whose keys and values came from the prefix cache.
    #[serde(default)]
    pub cached_tokens: u32,
    /// Prompt tokens that a vendor wrote into its cache, where it bills them apart; a part of `prompt_tokens`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_written_tokens: u32,
    /// Generated tokens of all choices.
    pub completion_tokens: u32,
    /// Generated tokens that are reasoning text, a part of `completion_tokens`.
    #[serde(default)]
    pub reasoning_tokens: u32,
    /// Where the numbers come from.
    #[serde(default)]
    pub source: UsageSource,
}

impl UsageSource {
    /// The less certain of two sources.
    #[must_use]
    pub fn weaker(self, other: Self) -> Self {
        let rank = |source| match source {
            Self::Counted => 0,
            Self::Reported => 1,
            Self::Estimated => 2,
            Self::Unknown => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl Usage {
    /// Adds what another attempt at the same request consumed.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.prompt_tokens, other.prompt_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.cache_written_tokens, other.cache_written_tokens),
            (&mut self.completion_tokens, other.completion_tokens),
            (&mut self.reasoning_tokens, other.reasoning_tokens),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.source = self.source.weaker(other.source);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Called once with the final usage of every request, also when its stream was dropped half way.
pub type UsageHook = Arc<dyn Fn(&Usage) + Send + Sync>;
