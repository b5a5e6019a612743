//! `POST /v1/rerank`, in Jina's and Cohere's shape, in and out.

use std::fmt;
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, RequestId, RerankRequest, RerankScores, Result, ScoreScale, TextPair};
use schemars::{JsonSchema, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::describe::{NoEffect, described, words};
use super::fields::Capped;
use super::notes::Notes;
use super::scale::{EncoderUsage, asked, truncation};
use crate::limits;

/// Documents to put in order.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "RerankRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct RerankBody {
    /// The deployment.
    model: String,
    /// What is looked for.
    query: Document,
    /// What may answer it.
    documents: Capped<Document, { limits::DOCUMENTS }>,
    /// How many of the best are told; all when absent.
    #[serde(default)]
    #[schemars(range(min = 1))]
    top_n: Option<u32>,
    /// Whether each result holds its document; true when absent.
    #[serde(default)]
    return_documents: Option<bool>,
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

/// A text, or an object that holds it.
#[derive(Debug)]
pub(crate) struct Document(String);

described!(Document, "Document", |_generator| json_schema!({
    "anyOf": [
        { "type": "string" },
        {
            "type": "object",
            "properties": { "text": { "type": "string" } },
            "required": ["text"],
            "additionalProperties": false
        }
    ]
}));

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Holder {
            text: String,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object with `text`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Document, E> {
                Ok(Document(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
                Holder::deserialize(MapAccessDeserializer::new(map)).map(|Holder { text }| Document(text))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What the answer is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Results at most.
    top_n: usize,
    documents: bool,
}

impl RerankBody {
    /// The request in our words, and what the answer is to hold.
    pub(crate) fn into_request(self, mut extra: Map<String, Value>) -> Result<(RerankRequest, Shown)> {
        if self.top_n == Some(0) {
            return Err(Error::invalid("top_n", "`top_n` must be at least 1"));
        }
        let scale = asked(self.scale.as_deref(), self.use_activation)?;
        let truncate = truncation(self.truncate, self.truncate_prompt_tokens, &mut extra)?;
        if self.query.0.is_empty() {
            return Err(Error::invalid("query", "`query` is empty"));
        }
        if self.documents.0.is_empty() {
            return Err(Error::invalid("documents", "`documents` must hold at least one text"));
        }
        let query: Arc<str> = self.query.0.into();
        let pairs = self.documents.0.into_iter().map(|Document(text)| TextPair::new(query.clone(), text));
        let pairs: Vec<TextPair> = pairs.collect();
        let shown = Shown {
            top_n: self.top_n.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX),
            documents: self.return_documents.unwrap_or(true),
        };
        Ok((RerankRequest { model: self.model, pairs, scale, truncate, extra }, shown))
    }
}

/// The documents in order.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RerankList")]
pub(crate) struct RerankAnswer {
    id: String,
    #[schemars(transform = words(&["list"]))]
    object: &'static str,
    /// The deployment.
    model: String,
    /// The best first.
    results: Vec<Ranked>,
    /// What the scores mean.
    scale: ScoreScale,
    usage: EncoderUsage,
    /// The same numbers where Cohere's clients look for them.
    meta: Meta,
    /// What there is to tell beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// One document.
#[derive(Debug, Serialize, JsonSchema)]
struct Ranked {
    /// Its place in the request.
    index: usize,
    /// The higher, the better it answers the query.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Shell>,
}

/// A document's text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RankedDocument")]
struct Shell {
    text: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct Meta {
    tokens: MetaTokens,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct MetaTokens {
    input_tokens: u32,
    output_tokens: u32,
}

impl RerankAnswer {
    /// The answer, and what there is to tell beside it. `documents` are the texts of the request, when they are to be
    /// shown.
    pub(crate) fn new(
        id: &RequestId,
        model: String,
        mut documents: Vec<String>,
        shown: Shown,
        scores: &RerankScores,
    ) -> Result<(Self, Notes)> {
        let (notes, usage) = checked(scores)?;
        let results = scores.ranking().into_iter().take(shown.top_n).map(|index| Ranked {
            index,
            relevance_score: scores.scores[index],
            document: documents.get_mut(index).map(|text| Shell { text: std::mem::take(text) }),
        });
        let tokens = MetaTokens {
            input_tokens: scores.usage.prompt_tokens,
            output_tokens: scores.usage.completion_tokens,
        };
        let answer = Self {
            id: format!("rerank-{id}"),
            object: "list",
            model,
            results: results.collect(),
            scale: scores.scale,
            usage,
            meta: Meta { tokens },
            byzerllm: notes.clone().some(),
        };
        Ok((answer, notes))
    }
}

impl Shown {
    /// The texts that the answer may show.
    pub(crate) fn texts(self, request: &RerankRequest) -> Vec<String> {
        if !self.documents {
            return Vec::new();
        }
        request.pairs.iter().map(|pair| pair.passage.clone()).collect()
    }
}

/// What there is to tell beside scores, and what they cost. Scores that are no numbers are the model's fault.
pub(super) fn checked(scores: &RerankScores) -> Result<(Notes, EncoderUsage)> {
    if scores.scores.iter().any(|score| !score.is_finite()) {
        let message = "the model gave a score that is infinite or no number";
        return Err(Error::new(ErrorKind::Upstream, message).with_usage(scores.usage.clone()));
    }
    let mut notes = Notes::default();
    scores.notices.iter().for_each(|notice| notes.notice(notice));
    notes.usage(&scores.usage);
    Ok((notes, (&scores.usage).into()))
}

/// An example for the document of the API.
pub(crate) fn example() -> Value {
    json!({
        "model": "chat",
        "query": "what is panda?",
        "documents": ["hi", "The giant panda is a bear species endemic to China."],
        "top_n": 1
    })
}
