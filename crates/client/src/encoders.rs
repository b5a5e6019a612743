//! Vectors and scores in the JSON of the server's routes.

use byzerllm_core::{
    EmbeddingRequest, Embeddings, Error, Notice, RerankRequest, RerankScores, ScoreScale, Usage, UsageSource,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The body of `/v1/embeddings`.
pub(crate) fn embedding_body(request: &EmbeddingRequest) -> Value {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("input".to_owned(), json!(request.inputs));
    if let Some(dimensions) = request.dimensions {
        body.insert("dimensions".to_owned(), json!(dimensions));
    }
    if request.truncate {
        body.insert("truncate".to_owned(), json!(true));
    }
    if let Some(prompt) = &request.prompt {
        body.insert("prompt_name".to_owned(), json!(prompt));
    }
    body.extend(request.extra.clone());
    Value::Object(body)
}

/// The body of `/v1/score`. A query that all pairs share is sent once.
pub(crate) fn score_body(request: &RerankRequest) -> Value {
    let pairs = &request.pairs;
    let shared = pairs.windows(2).all(|pair| pair[0].query == pair[1].query);
    let queries = match pairs.first() {
        Some(first) if shared => json!(first.query),
        _ => pairs.iter().map(|pair| json!(pair.query)).collect(),
    };
    let passages: Vec<&str> = pairs.iter().map(|pair| pair.passage.as_str()).collect();
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("text_1".to_owned(), queries);
    body.insert("text_2".to_owned(), json!(passages));
    if let Some(scale) = request.scale {
        body.insert("scale".to_owned(), json!(scale));
    }
    if request.truncate {
        body.insert("truncate".to_owned(), json!(true));
    }
    body.extend(request.extra.clone());
    Value::Object(body)
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Vec<T>,
    usage: Spent,
    #[serde(default)]
    byzerllm: Notes,
    #[serde(default)]
    scale: Option<ScoreScale>,
}

#[derive(Deserialize)]
struct Vector {
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Score {
    score: f32,
}

#[derive(Deserialize)]
struct Spent {
    prompt_tokens: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Notes {
    notices: Vec<Notice>,
    usage_source: UsageSource,
}

impl<T> Answer<T> {
    fn usage(&self) -> Usage {
        let (prompt_tokens, source) = (self.usage.prompt_tokens, self.byzerllm.usage_source);
        Usage { prompt_tokens, source, ..Usage::default() }
    }
}

/// What `/v1/embeddings` answers.
pub(crate) fn embeddings(answer: Value) -> serde_json::Result<Embeddings> {
    let answer: Answer<Vector> = serde_json::from_value(answer)?;
    let usage = answer.usage();
    let vectors = answer.data.into_iter().map(|row| row.embedding).collect();
    Ok(Embeddings { vectors, usage, notices: answer.byzerllm.notices })
}

/// What `/v1/score` answers to so many pairs.
pub(crate) fn scores(answer: Value, pairs: usize) -> serde_json::Result<RerankScores> {
    let answer: Answer<Score> = serde_json::from_value(answer)?;
    let wrong = |what: &str| <serde_json::Error as serde::de::Error>::custom(what);
    if answer.data.len() != pairs {
        return Err(wrong("another number of scores than of pairs"));
    }
    let usage = answer.usage();
    let scale = answer.scale.ok_or_else(|| wrong("scores without a scale"))?;
    let scores = answer.data.into_iter().map(|row| row.score).collect();
    Ok(RerankScores { scores, scale, usage, notices: answer.byzerllm.notices })
}

/// An error about the pairs under the name that a runtime of this process has for them.
pub(crate) fn renamed(error: Error) -> Error {
    let renamed =
        error.param().and_then(|param| param.strip_prefix("text_2")).map(|rest| format!("documents{rest}"));
    match renamed {
        Some(param) => error.with_param(param),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use byzerllm_core::{EmbeddingInput, TextPair};

    use super::*;

    #[test]
    fn a_query_of_all_pairs_is_sent_once() {
        let mut request = RerankRequest {
            model: "m".to_owned(),
            pairs: vec![TextPair::new("q", "a"), TextPair::new("q", "b")],
            scale: Some(ScoreScale::Probability),
            truncate: true,
            extra: Map::new(),
        };
        let expected = json!({"model": "m", "text_1": "q", "text_2": ["a", "b"], "scale": "probability", "truncate": true});
        assert_eq!(score_body(&request), expected);
        request.pairs[1].query = "p".into();
        (request.scale, request.truncate) = (None, false);
        assert_eq!(score_body(&request), json!({"model": "m", "text_1": ["q", "p"], "text_2": ["a", "b"]}));
    }

    #[test]
    fn what_the_server_tells_beside_the_numbers_arrives() {
        let request = EmbeddingRequest {
            model: "m".to_owned(),
            inputs: vec![EmbeddingInput::Tokens(vec![1])],
            dimensions: Some(2),
            truncate: true,
            prompt: Some("query".to_owned()),
            extra: [("normalize".to_owned(), json!(true))].into_iter().collect(),
        };
        let expected = json!({"model": "m", "input": [[1]], "dimensions": 2, "truncate": true,
            "prompt_name": "query", "normalize": true});
        assert_eq!(embedding_body(&request), expected);
        let notice = json!({"notice": "truncated", "from": 9, "to": 3});
        let usage = json!({"prompt_tokens": 3, "total_tokens": 3});
        let answer =
            json!({"data": [{"embedding": [1.0, 0.0]}], "usage": usage, "byzerllm": {"notices": [notice]}});
        let read = embeddings(answer).unwrap();
        assert_eq!(read.notices, [Notice::Truncated { input: None, from: 9, to: 3 }]);
        assert_eq!((read.usage.prompt_tokens, read.vectors), (3, vec![vec![1.0, 0.0]]));
        let answer = |data: Value| json!({"data": data, "usage": usage, "scale": "logit"});
        let read = scores(answer(json!([{"score": -1.5}])), 1).unwrap();
        assert_eq!((read.scores, read.scale), (vec![-1.5], ScoreScale::Logit));
        assert!(scores(answer(json!([])), 1).is_err(), "a score too few");
        assert!(scores(json!({"data": [], "usage": usage}), 0).is_err(), "no scale");
    }
}
