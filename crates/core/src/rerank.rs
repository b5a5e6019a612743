//! Scores for pairs of texts.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Notice, RequestContext, Result, Usage};

/// A pair to score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextPair {
    /// What is looked for. Pairs of one query share its text.
    pub query: Arc<str>,
    /// What may answer it.
    pub passage: String,
}

impl TextPair {
    /// A pair.
    #[must_use]
    pub fn new(query: impl Into<Arc<str>>, passage: impl Into<String>) -> Self {
        Self { query: query.into(), passage: passage.into() }
    }
}

/// What the numbers of [`RerankScores`] mean. Both have the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScoreScale {
    /// What the classifier gives: any number, 0 where it is undecided.
    Logit,
    /// The logistic function of the logit: between 0 and 1.
    Probability,
}

impl ScoreScale {
    /// Both.
    pub const ALL: [ScoreScale; 2] = [ScoreScale::Logit, ScoreScale::Probability];

    /// The word in requests and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logit => "logit",
            Self::Probability => "probability",
        }
    }

    /// A logit on this scale.
    #[must_use]
    pub fn of_logit(self, logit: f32) -> f32 {
        match self {
            Self::Logit => logit,
            // In f64, so that the order of large logits survives as far as an f32 can show it.
            Self::Probability => (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32,
        }
    }
}

impl std::str::FromStr for ScoreScale {
    type Err = crate::Error;

    fn from_str(word: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|scale| scale.as_str() == word);
        known.ok_or_else(|| crate::Error::invalid("scale", "`scale` must be 'logit' or 'probability'"))
    }
}

/// A request for scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankRequest {
    /// The deployment's name.
    pub model: String,
    /// What to score, at least one.
    pub pairs: Vec<TextPair>,
    /// What the scores are to mean; logits when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScoreScale>,
    /// Whether passages that are too long for the model are cut, which a notice then tells; otherwise they are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncate: bool,
    /// Parameters of one model only, under its own names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// The scores of a request, in the order of its pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RerankScores {
    /// One number per pair; the higher, the better the passage answers the query.
    pub scores: Vec<f32>,
    /// What they mean.
    pub scale: ScoreScale,
    /// The tokens spent.
    pub usage: Usage,
    /// What was worth telling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

impl RerankScores {
    /// The places of the scores, best first; equal ones in the order of the request.
    #[must_use]
    pub fn ranking(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.scores.len()).collect();
        places.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]));
        places
    }
}

/// A model that says how well passages answer queries.
#[async_trait]
pub trait RerankModel: Send + Sync {
    /// Scores all pairs of a request, or none.
    ///
    /// # Errors
    /// Bad parameters, input that is too long, overload, an unavailable model.
    async fn rerank(&self, request: RerankRequest, context: RequestContext) -> Result<RerankScores>;

    /// The names that [`RerankRequest::extra`] may hold.
    fn extra_parameters(&self) -> &[&'static str] {
        &[]
    }

    /// Whether it talks to [`crate::Accounting`] itself, attempt by attempt. For others the runtime does.
    fn accounts(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_keep_the_order_and_the_bounds() {
        let logits = [-200.0, -8.154, -0.5, 0.0, 0.4474, 6.18, 200.0];
        let numbers = logits.map(|logit| ScoreScale::Probability.of_logit(logit));
        assert!(numbers.is_sorted() && numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        assert_eq!(numbers[3], 0.5);
        assert!((numbers[4] - 0.610_02).abs() < 1e-4);
        assert_eq!(logits.map(|logit| ScoreScale::Logit.of_logit(logit)), logits);
    }

    #[test]
    fn the_best_comes_first_and_ties_keep_their_order() {
        let scores = RerankScores {
            scores: vec![1.0, 3.0, -2.0, 3.0],
            scale: ScoreScale::Logit,
            usage: Usage::default(),
            notices: Vec::new(),
        };
        assert_eq!(scores.ranking(), [1, 3, 0, 2]);
        assert_eq!("logit".parse::<ScoreScale>().unwrap(), ScoreScale::Logit);
        assert_eq!("percent".parse::<ScoreScale>().unwrap_err().param(), Some("scale"));
    }
}
