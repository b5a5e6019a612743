//! Embedding and reranking models of this machine, deployed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use byzerllm_core::{
    ChatRequest, EmbeddingInput, EmbeddingRequest, ErrorKind, Input, RequestContext, RerankRequest, TextPair,
};
use byzerllm_runtime::{DeploymentSpec, Quantization, Runtime, inspect};

use crate::options;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures/encoders"))
        .canonicalize()
        .unwrap()
        .join(name)
}

fn embedding(model: &str, text: &str) -> EmbeddingRequest {
    EmbeddingRequest {
        model: model.to_owned(),
        inputs: vec![EmbeddingInput::Text(text.to_owned())],
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    }
}

fn pairs(model: &str) -> RerankRequest {
    RerankRequest {
        model: model.to_owned(),
        pairs: vec![TextPair::new("capital", "Paris"), TextPair::new("capital", "hello world")],
        scale: None,
        truncate: false,
        extra: Default::default(),
    }
}

#[tokio::test]
async fn encoders_stand_beside_chat_models_and_each_says_what_it_does() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let status = runtime.deploy(DeploymentSpec::new("emb", fixture("bert-mean"))).await.unwrap();
    assert!(status.effective.is_empty(), "nothing is generated");
    let info = status.info.unwrap();
    assert_eq!((info.details["task"].as_str(), info.context_length), (Some("embed"), Some(40)));
    assert!(info.weight_bytes > 0 && !info.chat_template);
    runtime.deploy(DeploymentSpec::new("rr", fixture("xlm-roberta-rank-bf16"))).await.unwrap();
    let made = runtime.embed(RequestContext::local(), embedding("emb", "Paris")).await.unwrap();
    assert_eq!((made.vectors.len(), made.vectors[0].len()), (1, 32));
    let scores = runtime.rerank(RequestContext::local(), pairs("rr")).await.unwrap();
    assert_eq!(scores.scores.len(), 2);

    let said = |error: byzerllm_core::Error| {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        error.message().to_owned()
    };
    let chat = |model: &str| ChatRequest::new(model, Input::Text("hi".to_owned()));
    let refused = said(runtime.chat(RequestContext::local(), chat("emb")).await.err().unwrap());
    assert!(
        refused.contains("'emb' does not generate text") && refused.contains("byzerllm embed"),
        "{refused}"
    );
    let refused = said(runtime.chat(RequestContext::local(), chat("rr")).await.err().unwrap());
    assert!(refused.contains("/v1/rerank"), "{refused}");
    let refused = said(runtime.rerank(RequestContext::local(), pairs("emb")).await.unwrap_err());
    assert!(refused.contains("makes embeddings"), "{refused}");
    let refused = said(runtime.embed(RequestContext::local(), embedding("rr", "x")).await.unwrap_err());
    assert!(refused.contains("scores pairs"), "{refused}");

    let numbers = runtime.metrics();
    let engine = numbers.iter().find(|numbers| numbers.deployment == "emb").unwrap();
    assert_eq!(engine.engine.map(|engine| engine.requests), Some(1));
    runtime.ready(Instant::now() + Duration::from_secs(60)).await.unwrap();
    runtime.undeploy("emb", Duration::from_secs(60)).await.unwrap();
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn words_that_mean_nothing_to_an_encoder_are_refused_by_name() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let mut spec = DeploymentSpec::new("emb", fixture("bert-mean"));
    spec.limits.cache_bytes = Some(1 << 20);
    let error = runtime.deploy(spec.clone()).await.unwrap_err();
    assert_eq!(error.param(), Some("limits.cache_bytes"), "{error}");
    spec.limits.cache_bytes = None;
    spec.quantization = Some(Quantization::Four);
    let error = runtime.deploy(spec.clone()).await.unwrap_err();
    assert_eq!(error.param(), Some("quantization"), "{error}");
    spec.quantization = Some(Quantization::Off);
    spec.limits.context_length = Some(8);
    let info = runtime.deploy(spec).await.unwrap().info.unwrap();
    assert_eq!(info.context_length, Some(8));
    let long = "the capital of France is Paris and so on";
    let error = runtime.embed(RequestContext::local(), embedding("emb", long)).await.unwrap_err();
    assert!(error.message().contains("at most 8"), "{error}");
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn kept_scores_are_told_again() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let mut spec = DeploymentSpec::new("rr", fixture("distilbert-rank"));
    spec.limits.answer_cache_entries = Some(10);
    runtime.deploy(spec).await.unwrap();
    let first = runtime.rerank(RequestContext::local(), pairs("rr")).await.unwrap();
    assert!(first.notices.is_empty());
    let again = runtime.rerank(RequestContext::local(), pairs("rr")).await.unwrap();
    assert_eq!(again.scores, first.scores);
    assert!(matches!(again.notices[..], [byzerllm_core::Notice::Cached { .. }]));
    assert_eq!(runtime.metrics()[0].engine.unwrap().requests, 1);
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn an_inspection_shows_task_pooling_and_length() {
    let found = inspect(&fixture("bert-mean")).await.unwrap();
    let detail = |name: &str| found.info.details[name].as_str().unwrap().to_owned();
    assert_eq!(
        (detail("task"), detail("pooling"), found.format.as_str()),
        ("embed".into(), "mean".into(), "safetensors")
    );
    assert_eq!(found.info.details["max_length"], 40);
    assert!(found.parameters > 0 && found.memory.cache_bytes == 0 && found.effective.is_empty());
    let found = inspect(&fixture("bert-rank-torch")).await.unwrap();
    assert_eq!((found.info.details["task"].as_str(), found.format.as_str()), (Some("rerank"), "torch"));
    assert!(inspect(&fixture("gguf-bert-cls/model.gguf")).await.unwrap().format.starts_with("gguf"));
}
