//! Tiny encoders of real families: the contract, long inputs, tokens, crowds.

use std::sync::Arc;

use byzerllm_core::testing::{embedding_conformance, rerank_conformance};
use byzerllm_core::{
    EmbeddingInput, EmbeddingModel, EmbeddingRequest, Embeddings, ErrorKind, Notice, RequestContext,
    RerankModel, RerankRequest, Result, ScoreScale, TextPair,
};
use byzerllm_engine::{EncoderOptions, EncoderText, LocalEncoder, Matryoshka};
use byzerllm_kernels::ComputePool;
use byzerllm_model::Compute;
use byzerllm_model::encoder::EncoderCheckpoint;
use futures::future::{join_all, try_join_all};
use serde_json::{Map, json};

use crate::real::{fixtures, pool};

fn start(
    name: &str,
    pool: &Arc<ComputePool>,
    matryoshka: Matryoshka,
    options: EncoderOptions,
) -> LocalEncoder {
    let checkpoint = EncoderCheckpoint::open(&fixtures().join("encoders").join(name)).unwrap();
    let text = EncoderText {
        tokenizer: checkpoint.tokenizer().unwrap(),
        name: "emb".to_owned(),
        normalized: checkpoint.config().head.normalize,
        matryoshka,
    };
    let network = checkpoint.network(pool, Compute::Standard, &|_| {}).unwrap();
    LocalEncoder::start(network, text, options).unwrap()
}

fn embedder() -> LocalEncoder {
    start("bert-mean", &pool(), Matryoshka::None, EncoderOptions::default())
}

fn texts(texts: &[&str]) -> EmbeddingRequest {
    EmbeddingRequest {
        model: "emb".to_owned(),
        inputs: texts.iter().map(|text| EmbeddingInput::Text((*text).to_owned())).collect(),
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Map::new(),
    }
}

fn pairs(passages: &[&str]) -> RerankRequest {
    RerankRequest {
        model: "rr".to_owned(),
        pairs: passages.iter().map(|passage| TextPair::new("capital", *passage)).collect(),
        scale: None,
        truncate: false,
        extra: Map::new(),
    }
}

async fn embed(model: &LocalEncoder, request: EmbeddingRequest) -> Result<Embeddings> {
    model.embed(request, RequestContext::local()).await
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|number| number * number).sum::<f32>().sqrt()
}

const LONG: &str = "the capital of France is Paris and the capital of Germany is Berlin, the capital of Italy is Rome and \
                    the capital of Spain is Madrid, the capital of Portugal is Lisbon and so on and so on and so on";

#[tokio::test]
async fn real_encoders_conform() {
    let pool = pool();
    for name in ["bert-mean", "distilbert-dense", "xlm-roberta-f16", "gguf-bert-cls/model.gguf"] {
        let model = start(name, &pool, Matryoshka::None, EncoderOptions::default());
        embedding_conformance(Arc::new(model), name).await;
    }
    for name in ["xlm-roberta-rank-bf16", "bert-rank-torch", "distilbert-rank"] {
        let model = start(name, &pool, Matryoshka::None, EncoderOptions::default());
        rerank_conformance(Arc::new(model), name).await;
    }
}

#[tokio::test]
async fn a_long_text_is_refused_by_its_place_or_cut_and_told() {
    let model = embedder();
    let error = embed(&model, texts(&["Paris", LONG])).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("input[1]")));
    assert!(error.message().contains("at most 40") && error.message().contains("truncate"), "{error}");
    let cut = EmbeddingRequest { truncate: true, ..texts(&["Paris", LONG]) };
    let embeddings = embed(&model, cut).await.unwrap();
    let [Notice::Truncated { input: Some(1), from, to: 40 }] = embeddings.notices[..] else {
        panic!("{:?}", embeddings.notices)
    };
    assert!(from > 40);
    assert_eq!(embeddings.vectors[0], embed(&model, texts(&["Paris"])).await.unwrap().vectors[0]);
    let shorter = EmbeddingRequest {
        truncate: true,
        extra: Map::from_iter([("max_length".to_owned(), json!(10))]),
        ..texts(&[LONG])
    };
    let embeddings = embed(&model, shorter).await.unwrap();
    assert_eq!(embeddings.notices, [Notice::Truncated { input: None, from, to: 10 }]);
    assert_eq!(embeddings.usage.prompt_tokens, 10);
    let error = model.rerank(pairs(&["a"]), RequestContext::local()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn tokens_are_as_good_as_their_text() {
    let model = embedder();
    let checkpoint = EncoderCheckpoint::open(&fixtures().join("encoders/bert-mean")).unwrap();
    let encoded = checkpoint.tokenizer().unwrap().text("The capital of France is Paris.", Some("")).unwrap();
    let inside = encoded.ids[1..encoded.ids.len() - 1].to_vec();
    let request = EmbeddingRequest { inputs: vec![EmbeddingInput::Tokens(inside)], ..texts(&[]) };
    let plain =
        EmbeddingRequest { prompt: Some(String::new()), ..texts(&["The capital of France is Paris."]) };
    let vectors = embed(&model, plain.clone()).await.unwrap().vectors;
    assert_eq!(embed(&model, request).await.unwrap().vectors, vectors);
    assert_ne!(embed(&model, texts(&["The capital of France is Paris."])).await.unwrap().vectors, vectors);
    let asked = EmbeddingRequest { prompt: Some("query".to_owned()), ..plain.clone() };
    assert_ne!(embed(&model, asked).await.unwrap().vectors, vectors, "a prompt changes the vector");
    let unknown = EmbeddingRequest { prompt: Some("quarry".to_owned()), ..plain };
    let error = embed(&model, unknown).await.unwrap_err();
    assert!(error.message().contains("query") && error.param() == Some("prompt"), "{error}");
    let foreign = EmbeddingRequest { inputs: vec![EmbeddingInput::Tokens(vec![9999])], ..texts(&[]) };
    let error = embed(&model, foreign).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("input")));
}

#[tokio::test]
async fn vectors_are_cut_only_where_the_model_says_so() {
    let pool = pool();
    let cut = |to| EmbeddingRequest { dimensions: Some(to), ..texts(&["Paris"]) };
    let model = start("bert-mean", &pool, Matryoshka::None, EncoderOptions::default());
    for wrong in [0, 8, 33] {
        let error = embed(&model, cut(wrong)).await.unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("dimensions")), "{wrong}");
    }
    let whole = embed(&model, cut(32)).await.unwrap().vectors.remove(0);
    let model = start("bert-mean", &pool, Matryoshka::Lengths(vec![8, 16]), EncoderOptions::default());
    let short = embed(&model, cut(8)).await.unwrap().vectors.remove(0);
    let scale = length(&whole[..8]);
    assert!((length(&short) - 1.0).abs() < 1e-5, "cut vectors have unit length again");
    assert!(short.iter().zip(&whole).all(|(short, whole)| (short * scale - whole).abs() < 1e-5));
    assert!(embed(&model, cut(9)).await.unwrap_err().message().contains("8, 16 or 32"));
    let raw = Map::from_iter([("normalize".to_owned(), json!(false))]);
    let error = embed(&model, EmbeddingRequest { extra: raw, ..texts(&["a"]) }).await.unwrap_err();
    assert_eq!(error.param(), Some("normalize"));
    let unknown = Map::from_iter([("pooling".to_owned(), json!("cls"))]);
    let error = embed(&model, EmbeddingRequest { extra: unknown, ..texts(&["a"]) }).await.unwrap_err();
    assert_eq!(error.param(), Some("pooling"));
}

#[tokio::test]
async fn rows_in_a_crowd_are_those_of_one_alone_bit_for_bit() {
    let options = EncoderOptions { max_batch_tokens: 64, ..EncoderOptions::default() };
    let model = Arc::new(start("bert-mean", &pool(), Matryoshka::None, options));
    let words = ["Paris", "hello world", "the capital of France", "a small text", "Bananas are yellow."];
    let alone: Vec<_> = join_all(words.map(|word| embed(&model, texts(&[word])))).await;
    let alone: Vec<Vec<f32>> = alone.into_iter().map(|made| made.unwrap().vectors.remove(0)).collect();
    let clients = (0..64).map(|client| {
        let (model, alone) = (Arc::clone(&model), alone.clone());
        tokio::spawn(async move {
            for round in 0..8 {
                let [one, two] = [(client + round) % 5, (client * 3 + round) % 5];
                let made = embed(&model, texts(&[words[one], words[two]])).await.unwrap();
                assert_eq!(made.vectors, [alone[one].clone(), alone[two].clone()]);
            }
        })
    });
    try_join_all(clients).await.unwrap();
    let metrics = model.metrics();
    assert_eq!((metrics.requests, metrics.running, metrics.waiting), (5 + 64 * 8, 0, 0));
    assert!(metrics.steps < metrics.requests, "requests shared steps: {metrics:?}");
}

#[tokio::test]
async fn rerankers_score_and_say_their_scale() {
    let pool = pool();
    let model = start("xlm-roberta-rank-bf16", &pool, Matryoshka::None, EncoderOptions::default());
    let passages = ["The capital of France is Paris.", "Paris", "柏林"];
    let logits = model.rerank(pairs(&passages), RequestContext::local()).await.unwrap();
    assert_eq!(logits.scale, ScoreScale::Logit);
    let asked = RerankRequest { scale: Some(ScoreScale::Probability), ..pairs(&passages) };
    let probabilities = model.rerank(asked, RequestContext::local()).await.unwrap();
    assert_eq!(logits.ranking(), probabilities.ranking());
    let error = model.rerank(pairs(&["a", &LONG.repeat(3)]), RequestContext::local()).await.unwrap_err();
    assert_eq!(error.param(), Some("documents[1]"), "{error}");
    let cut = RerankRequest { truncate: true, ..pairs(&["a", &LONG.repeat(3)]) };
    let scores = model.rerank(cut, RequestContext::local()).await.unwrap();
    assert!(matches!(scores.notices[..], [Notice::Truncated { input: Some(1), .. }]));
    let error = embed(&model, texts(&["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let checkpoint = EncoderCheckpoint::open(&fixtures().join("encoders/roberta-labels")).unwrap();
    let text = EncoderText {
        tokenizer: checkpoint.tokenizer().unwrap(),
        name: "labels".to_owned(),
        normalized: false,
        matryoshka: Matryoshka::None,
    };
    let network = checkpoint.network(&pool, Compute::Standard, &|_| {}).unwrap();
    let refused = LocalEncoder::start(network, text, EncoderOptions::default()).unwrap_err();
    assert!(refused.kind() == ErrorKind::Unsupported && refused.message().contains("3 labels"), "{refused}");
}

#[tokio::test]
async fn the_probe_and_the_end() {
    let model = embedder();
    let soon = || std::time::Instant::now() + std::time::Duration::from_secs(60);
    model.probe(soon()).await.unwrap();
    assert_eq!(model.metrics().steps, 1);
    model.shutdown();
    model.closed().await;
    assert_eq!(embed(&model, texts(&["a"])).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(model.probe(soon()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
