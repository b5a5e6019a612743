//! Embeddings in OpenAI's dialect.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use byzerllm_core::{EmbeddingInput, EmbeddingRequest, ErrorKind, UsageSource};
use serde_json::{Value, json};

use crate::openai_fixtures::{open, signing};

const KEY: (&str, &str) = ("api_key", "k-123");

fn request(inputs: &[&str]) -> EmbeddingRequest {
    EmbeddingRequest {
        model: "m".to_owned(),
        inputs: inputs.iter().map(|text| EmbeddingInput::Text((*text).to_owned())).collect(),
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    }
}

fn written(vendor: &str, model: &str, request: &EmbeddingRequest) -> Result<Value, (ErrorKind, String)> {
    let dialect = open(vendor, [KEY, ("model", model)]).unwrap();
    assert!(dialect.features().embeddings && !dialect.features().chat, "{model} makes vectors alone");
    match dialect.embed(request, &signing()) {
        Ok(outbound) => Ok(serde_json::from_slice(&outbound.body).unwrap()),
        Err(error) => Err((error.kind(), error.param().unwrap().to_owned())),
    }
}

/// <https://platform.openai.com/docs/api-reference/embeddings/create>, <https://docs.bigmodel.cn/api-reference>,
/// <https://platform.baichuan-ai.com/docs/text-Embedding>.
#[test]
fn requests_are_written_as_each_vendor_wants_them() {
    let mut asked = request(&["a", "世"]);
    let plain = |model: &str| json!({"model": model, "input": ["a", "世"]});
    let mut compact = plain("text-embedding-3-small");
    compact["encoding_format"] = json!("base64");
    assert_eq!(written("openai", "text-embedding-3-small", &asked), Ok(compact.clone()));
    assert_eq!(written("zhipu", "embedding-2", &asked), Ok(plain("embedding-2")));
    assert_eq!(written("baichuan", "Baichuan-Text-Embedding", &asked), Ok(plain("Baichuan-Text-Embedding")));
    asked.dimensions = Some(256);
    compact["dimensions"] = json!(256);
    assert_eq!(written("openai", "text-embedding-3-small", &asked), Ok(compact));
    assert_eq!(written("zhipu", "embedding-3", &asked).unwrap()["dimensions"], 256);
    let refused = |name: &str| Err((ErrorKind::Unsupported, name.to_owned()));
    assert_eq!(written("zhipu", "embedding-2", &asked), refused("dimensions"));
    assert_eq!(written("baichuan", "Baichuan-Text-Embedding", &asked), refused("dimensions"));
    let mut extra = request(&["a"]);
    extra.extra.insert("mood".to_owned(), json!(1));
    assert_eq!(written("openai", "text-embedding-3-small", &extra), refused("mood"));
    let mut tokens = request(&[]);
    tokens.inputs = vec![EmbeddingInput::Tokens(vec![1, 2])];
    assert_eq!(written("openai", "text-embedding-3-small", &tokens).unwrap()["input"], json!([[1, 2]]));
    assert_eq!(written("zhipu", "embedding-3", &tokens), refused("input"));
}

#[test]
fn vendors_without_embeddings_say_so() {
    for vendor in ["deepseek", "moonshot"] {
        let dialect = open(vendor, [KEY, ("model", "x")]).unwrap();
        assert!(!dialect.features().embeddings);
        assert_eq!(dialect.embed(&request(&["a"]), &signing()).err().unwrap().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn batches_are_as_large_as_each_vendor_takes_them() {
    for (vendor, batch) in [("openai", 2048), ("zhipu", 64), ("baichuan", 16), ("siliconflow", 32)] {
        assert_eq!(open(vendor, [KEY, ("model", "x")]).unwrap().embedding_batch(), batch, "{vendor}");
    }
}

fn row(index: Value, embedding: Value) -> Value {
    json!({"object": "embedding", "index": index, "embedding": embedding})
}

fn answer(rows: &[Value]) -> Vec<u8> {
    let usage = json!({"prompt_tokens": 8, "total_tokens": 8});
    json!({"object": "list", "data": rows, "model": "m", "usage": usage}).to_string().into_bytes()
}

#[test]
fn vectors_are_read_in_both_forms_and_put_in_order() {
    let dialect = open("openai", [KEY]).unwrap();
    let packed: Vec<u8> = [0.5_f32, -1.25].iter().flat_map(|number| number.to_le_bytes()).collect();
    let both = answer(&[row(json!(1), json!([3.0, 4.0])), row(json!(0), json!(STANDARD.encode(packed)))]);
    let embeddings = dialect.embedded(&both).unwrap();
    assert_eq!(embeddings.vectors, [[0.5, -1.25], [3.0, 4.0]]);
    assert_eq!((embeddings.usage.prompt_tokens, embeddings.usage.completion_tokens), (8, 0));
    assert_eq!(embeddings.usage.source, UsageSource::Reported);
    let bare = json!({"data": [row(Value::Null, json!([1.0]))]}).to_string();
    let embeddings = dialect.embedded(bare.as_bytes()).unwrap();
    assert_eq!((embeddings.vectors.len(), embeddings.usage.source), (1, UsageSource::Unknown));
}

#[test]
fn broken_vectors_are_errors() {
    let dialect = open("openai", [KEY]).unwrap();
    for rows in [
        vec![row(json!(0), json!([1.0])), row(json!(0), json!([1.0]))],
        vec![row(json!(1), json!([1.0]))],
        vec![row(json!(0), json!([1.0])), row(json!(1), json!([1.0, 2.0]))],
        vec![row(json!(0), json!("AAA="))],
        vec![row(json!(0), json!("not base64!"))],
        vec![row(json!(0), json!(STANDARD.encode(f32::NAN.to_le_bytes())))],
        vec![row(json!(0), json!(null))],
    ] {
        let error = dialect.embedded(&answer(&rows)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Upstream, "{rows:?}");
    }
    let error = dialect.embedded(br#"{"error":{"message":"x","code":"rate_limit_exceeded"}}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
}
