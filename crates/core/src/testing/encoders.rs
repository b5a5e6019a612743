//! Vectors and scores of the scripted model, and what every [`EmbeddingModel`] and [`RerankModel`] promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future;

use super::{ScriptedModel, fail, fake_id, lock, watched, words};
use crate::{
    EmbeddingInput, EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, RequestContext,
    RerankModel, RerankRequest, RerankScores, Result, ScoreScale, TextPair, Usage,
};

fn check_deadline(context: &RequestContext) -> Result<()> {
    match context.deadline {
        Some(deadline) if Instant::now() >= deadline => {
            Err(Error::new(ErrorKind::DeadlineExceeded, "the deadline passed; allow more time"))
        }
        _ => Ok(()),
    }
}

fn told(context: &RequestContext, prompt_tokens: u32) -> Usage {
    let usage = Usage { prompt_tokens, ..Usage::default() };
    if let Some(hook) = &context.on_usage {
        hook(&usage);
    }
    usage
}

/// Its vectors are made up of the words: four numbers each, or as many as are asked for.
#[async_trait]
impl EmbeddingModel for ScriptedModel {
    async fn embed(&self, request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings> {
        if let Some(error) = &self.refusal {
            return Err(error.duplicate());
        }
        if request.inputs.is_empty() {
            return Err(Error::invalid("input", "input is empty; send at least one text"));
        }
        if request.dimensions == Some(0) {
            return Err(Error::invalid("dimensions", "`dimensions` must be at least 1"));
        }
        check_deadline(&context)?;
        let mut prompt_tokens = 0;
        let vector = |input: &EmbeddingInput| {
            let ids = match input {
                EmbeddingInput::Text(text) => words(text).iter().map(|word| fake_id(word)).collect(),
                EmbeddingInput::Tokens(ids) => ids.clone(),
            };
            prompt_tokens += ids.len() as u32;
            let sum = ids.iter().fold(1u32, |sum, id| sum.wrapping_mul(31).wrapping_add(*id));
            let numbers = request.dimensions.unwrap_or(4);
            (0..numbers).map(|place| (sum.wrapping_add(place) % 1000) as f32 / 1000.0).collect()
        };
        let vectors = request.inputs.iter().map(vector).collect();
        Ok(Embeddings { vectors, usage: told(&context, prompt_tokens), notices: Vec::new() })
    }
}

/// Its scores count the words that query and passage share, less those of the query that the passage lacks.
#[async_trait]
impl RerankModel for ScriptedModel {
    async fn rerank(&self, request: RerankRequest, context: RequestContext) -> Result<RerankScores> {
        if let Some(error) = &self.refusal {
            return Err(error.duplicate());
        }
        if request.pairs.is_empty() {
            return Err(Error::invalid("documents", "there is nothing to score; send at least one document"));
        }
        check_deadline(&context)?;
        let scale = request.scale.unwrap_or(ScoreScale::Logit);
        let mut prompt_tokens = 0;
        let score = |pair: &TextPair| {
            let set = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<BTreeSet<_>>();
            prompt_tokens += (words(&pair.query).len() + words(&pair.passage).len()) as u32;
            let (query, passage) = (set(&pair.query), set(&pair.passage));
            let shared = query.intersection(&passage).count();
            scale.of_logit(shared as f32 - (query.len() - shared) as f32)
        };
        let scores = request.pairs.iter().map(score).collect();
        Ok(RerankScores { scores, scale, usage: told(&context, prompt_tokens), notices: Vec::new() })
    }
}

/// Runs `model` through everything that the contract of vectors promises. The model must be idle and take short English
/// texts; panics with `name` and the broken promise.
pub async fn embedding_conformance(model: Arc<dyn EmbeddingModel>, name: &str) {
    let model = &*model;
    let texts = ["a cat", "a dog sleeps", "a cat", "the moon is far away tonight"];
    let together = vectors(model, name, &texts).await;
    assert_eq!(together[0], together[2], "{name}: equal texts have equal vectors");
    assert_ne!(together[0], together[3], "{name}: different texts have different vectors");
    let runs = texts.map(|text| async move { vectors(model, name, &[text]).await.remove(0) });
    for (alone, beside) in future::join_all(runs).await.iter().zip(&together) {
        let far = alone.iter().zip(beside).any(|(a, b)| (a - b).abs() > 1e-4 * (1.0 + a.abs()));
        assert!(!far, "{name}: a vector depends on what else is asked");
    }
    refused_vectors(model, name, embedding(&[]), "input").await;
    let none = EmbeddingRequest { dimensions: Some(0), ..embedding(&texts) };
    refused_vectors(model, name, none, "dimensions").await;
    let outcome = model.embed(embedding(&texts), late()).await.map(|_| ());
    assert_eq!(kind(outcome), Some(ErrorKind::DeadlineExceeded), "{name}: a deadline that has passed");
    for _ in 0..3 {
        // Whoever loses interest takes nothing along.
        drop(model.embed(embedding(&texts), RequestContext::local()));
        let _ = futures::poll!(model.embed(embedding(&texts), RequestContext::local()));
    }
    vectors(model, name, &texts).await;
}

fn embedding(texts: &[&str]) -> EmbeddingRequest {
    EmbeddingRequest {
        model: "conformance".to_owned(),
        inputs: texts.iter().map(|text| EmbeddingInput::Text((*text).to_owned())).collect(),
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: serde_json::Map::new(),
    }
}

async fn vectors(model: &dyn EmbeddingModel, name: &str, texts: &[&str]) -> Vec<Vec<f32>> {
    let (context, reports) = watched();
    let embeddings = match model.embed(embedding(texts), context).await {
        Ok(embeddings) => embeddings,
        Err(error) => fail(name, format_args!("a valid request was refused: {error}")),
    };
    let Embeddings { vectors, usage, .. } = embeddings;
    assert_eq!(vectors.len(), texts.len(), "{name}: one vector per text");
    assert!(vectors.iter().all(|v| !v.is_empty() && v.len() == vectors[0].len()), "{name}: one length");
    assert!(vectors.iter().flatten().all(|number| number.is_finite()), "{name}: numbers");
    assert!(usage.prompt_tokens > 0 && usage.completion_tokens == 0, "{name}: the tokens are counted");
    assert_eq!(*lock(&reports), [usage], "{name}: the hook hears the usage once");
    vectors
}

async fn refused_vectors(model: &dyn EmbeddingModel, name: &str, request: EmbeddingRequest, param: &str) {
    match model.embed(request, RequestContext::local()).await {
        Ok(_) => fail(name, format_args!("a bad {param} was accepted")),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{name}: kind of a bad {param}");
            assert_eq!(error.param(), Some(param), "{name}: the parameter at fault");
        }
    }
}

/// Runs `model` through everything that the contract of scores promises. The model must be idle and take short English
/// texts; panics with `name` and the broken promise.
pub async fn rerank_conformance(model: Arc<dyn RerankModel>, name: &str) {
    let model = &*model;
    let passages = ["a cat sleeps", "the moon", "a cat sleeps", "what does a cat eat"];
    let logits = scores(model, name, &passages, None).await;
    assert_eq!(logits[0], logits[2], "{name}: equal pairs have equal scores");
    assert_eq!(
        logits,
        scores(model, name, &passages, Some(ScoreScale::Logit)).await,
        "{name}: logits are the default"
    );
    let probabilities = scores(model, name, &passages, Some(ScoreScale::Probability)).await;
    for (logit, probability) in logits.iter().zip(&probabilities) {
        let expected = ScoreScale::Probability.of_logit(*logit);
        assert!((expected - probability).abs() < 1e-5, "{name}: a probability is the sigmoid of the logit");
    }
    let runs = passages.map(|text| async move { scores(model, name, &[text], None).await[0] });
    for (alone, beside) in future::join_all(runs).await.into_iter().zip(&logits) {
        assert!(
            (alone - beside).abs() <= 1e-4 * (1.0 + alone.abs()),
            "{name}: a score depends on the others"
        );
    }
    match model.rerank(pairs(&[], None), RequestContext::local()).await {
        Ok(_) => fail(name, "a request without pairs was accepted"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{name}: kind of a request without pairs");
            assert_eq!(error.param(), Some("documents"), "{name}: the parameter at fault");
        }
    }
    let outcome = model.rerank(pairs(&passages, None), late()).await.map(|_| ());
    assert_eq!(kind(outcome), Some(ErrorKind::DeadlineExceeded), "{name}: a deadline that has passed");
    for _ in 0..3 {
        drop(model.rerank(pairs(&passages, None), RequestContext::local()));
        let _ = futures::poll!(model.rerank(pairs(&passages, None), RequestContext::local()));
    }
    scores(model, name, &passages, None).await;
}

fn pairs(passages: &[&str], scale: Option<ScoreScale>) -> RerankRequest {
    let query: Arc<str> = "what does a cat do".into();
    RerankRequest {
        model: "conformance".to_owned(),
        pairs: passages.iter().map(|passage| TextPair::new(query.clone(), *passage)).collect(),
        scale,
        truncate: false,
        extra: serde_json::Map::new(),
    }
}

async fn scores(
    model: &dyn RerankModel,
    name: &str,
    passages: &[&str],
    scale: Option<ScoreScale>,
) -> Vec<f32> {
    let (context, reports) = watched();
    let told = match model.rerank(pairs(passages, scale), context).await {
        Ok(told) => told,
        Err(error) => fail(name, format_args!("a valid request was refused: {error}")),
    };
    assert_eq!(told.scores.len(), passages.len(), "{name}: one score per pair");
    assert_eq!(told.scale, scale.unwrap_or(ScoreScale::Logit), "{name}: the scale is declared");
    assert!(told.scores.iter().all(|score| score.is_finite()), "{name}: numbers");
    assert!(told.usage.prompt_tokens > 0 && told.usage.completion_tokens == 0, "{name}: tokens are counted");
    assert_eq!(*lock(&reports), [told.usage], "{name}: the hook hears the usage once");
    told.scores
}

fn late() -> RequestContext {
    let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
    RequestContext { deadline: Some(past), ..RequestContext::local() }
}

fn kind(outcome: Result<()>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_scripted_model_conforms() {
        let model = Arc::new(ScriptedModel::new(""));
        embedding_conformance(model.clone(), "scripted").await;
        rerank_conformance(model, "scripted").await;
    }
}
