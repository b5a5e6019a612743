//! `POST /v1/score`, in vLLM's shape, in and out.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use byzerllm_core::{Error, RequestId, RerankRequest, RerankScores, Result, ScoreScale, TextPair};
use schemars::{JsonSchema, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::describe::{NoEffect, described, words};
use super::notes::Notes;
use super::rerank::checked;
use super::scale::{EncoderUsage, asked, truncation};
use crate::limits;

/// Pairs of texts to score: one text with each of a list, or two lists side by side.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ScoreRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct ScoreBody {
    /// The deployment.
    model: String,
    /// What is looked for: one text for all pairs, or one for each.
    text_1: Texts,
    /// What may answer it: one text, or a list.
    text_2: Texts,
    /// What the scores are to mean: the classifier's raw logits, also when absent, or probabilities between 0 and 1.
    #[serde(default)]
    #[schemars(transform = words(&["logit", "probability"]))]
    scale: Option<String>,
    /// The same in vLLM's word: true asks for probabilities.
    #[serde(default)]
    use_activation: Option<bool>,
    /// Whether a pair that is too long for the model is cut, which the answer then tells; otherwise it is refused.
    #[serde(default)]
    truncate: Option<bool>,
    /// Cuts pairs to so many tokens, -1 to what the model reads at most.
    #[serde(default)]
    #[schemars(range(min = -1))]
    truncate_prompt_tokens: Option<i64>,
    /// Who asks, in words of the caller.
    #[serde(default, rename = "user")]
    _user: NoEffect<String>,
}

/// A text or a list of texts.
#[derive(Debug)]
pub(crate) enum Texts {
    One(String),
    List(Vec<String>),
}

described!(Texts, "Texts", |_generator| json_schema!({
    "anyOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": limits::DOCUMENTS }
    ]
}));

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                const MAX: usize = limits::DOCUMENTS;
                let mut list = Vec::new();
                while let Some(text) = items.next_element()? {
                    if list.len() == MAX {
                        return Err(serde::de::Error::custom(format_args!("more than {MAX} texts")));
                    }
                    list.push(text);
                }
                Ok(Texts::List(list))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Texts {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::List(list) => list,
        }
    }
}

impl ScoreBody {
    /// The request in our words.
    pub(crate) fn into_request(self, mut extra: Map<String, Value>) -> Result<RerankRequest> {
        let scale = asked(self.scale.as_deref(), self.use_activation)?;
        let truncate = truncation(self.truncate, self.truncate_prompt_tokens, &mut extra)?;
        let (queries, passages) = (self.text_1.into_vec(), self.text_2.into_vec());
        for (name, texts) in [("text_1", &queries), ("text_2", &passages)] {
            if texts.is_empty() {
                return Err(Error::invalid(name, format!("`{name}` must hold at least one text")));
            }
        }
        let (one, several) = (queries.len(), passages.len());
        let pairs: Vec<TextPair> = if one == several {
            queries.into_iter().zip(passages).map(|(query, passage)| TextPair::new(query, passage)).collect()
        } else if let [query] = &queries[..] {
            let query: Arc<str> = query.as_str().into();
            passages.into_iter().map(|passage| TextPair::new(query.clone(), passage)).collect()
        } else {
            let message = format!(
                "`text_1` has {one} texts and `text_2` {several}; send one text in `text_1`, or as many as in `text_2`"
            );
            return Err(Error::invalid("text_1", message));
        };
        Ok(RerankRequest { model: self.model, pairs, scale, truncate, extra })
    }
}

/// An error about the pairs, under the name that this route has for them.
pub(crate) fn renamed(error: Error) -> Error {
    let renamed =
        error.param().and_then(|param| param.strip_prefix("documents")).map(|rest| format!("text_2{rest}"));
    match renamed {
        Some(param) => error.with_param(param),
        None => error,
    }
}

/// The scores.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ScoreList")]
pub(crate) struct ScoreAnswer {
    id: String,
    #[schemars(transform = words(&["list"]))]
    object: &'static str,
    /// In seconds since 1970.
    created: u64,
    /// The deployment.
    model: String,
    /// In the order of the pairs.
    data: Vec<Score>,
    /// What the scores mean.
    scale: ScoreScale,
    usage: EncoderUsage,
    /// What there is to tell beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// The score of one pair.
#[derive(Debug, Serialize, JsonSchema)]
struct Score {
    index: usize,
    #[schemars(transform = words(&["score"]))]
    object: &'static str,
    score: f32,
}

impl ScoreAnswer {
    /// The answer, and what there is to tell beside it.
    pub(crate) fn new(id: &RequestId, model: String, scores: &RerankScores) -> Result<(Self, Notes)> {
        let (notes, usage) = checked(scores)?;
        let data = scores.scores.iter().enumerate();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let answer = Self {
            id: format!("score-{id}"),
            object: "list",
            created,
            model,
            data: data.map(|(index, &score)| Score { index, object: "score", score }).collect(),
            scale: scores.scale,
            usage,
            byzerllm: notes.clone().some(),
        };
        Ok((answer, notes))
    }
}

/// An example for the document of the API.
pub(crate) fn example() -> Value {
    json!({ "model": "chat", "text_1": "what is panda?", "text_2": ["hi", "A panda is a bear."] })
}
