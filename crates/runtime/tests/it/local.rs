//! Tiny random checkpoints through our own engine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use byzerllm_core::{ChatRequest, ErrorKind, FrontEnd, Input, Origin, RequestContext, Sampling, collect};
use byzerllm_runtime::{Compute, DeploymentSpec, Runtime};

use crate::options;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures"))
        .canonicalize()
        .unwrap()
        .join(name)
}

fn exact(name: &str, model: &str) -> DeploymentSpec {
    let mut spec = DeploymentSpec::new(name, fixture(model));
    spec.compute = Compute::Exact;
    spec
}

fn greedy(model: &str) -> ChatRequest {
    let mut request = ChatRequest::new(model, Input::Tokens(vec![5, 6, 7, 8]));
    request.sampling.temperature = Some(0.0);
    request.sampling.max_tokens = Some(6);
    request
}

#[tokio::test]
async fn two_checkpoints_share_one_runtime() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let status = runtime.deploy(exact("a", "llama-tied-f32")).await.unwrap();
    let info = status.info.unwrap();
    assert_eq!(info.architectures, ["LlamaForCausalLM"]);
    assert_eq!(info.context_length, Some(256));
    assert!(info.weight_bytes > 0 && info.compute.contains("exact"), "{}", info.compute);
    // The path in use, in words that need no knowledge of the kernels.
    let words = ["compute_mode", "arithmetic", "cache_type"].map(|name| info.details[name].as_str().unwrap());
    assert_eq!(words, ["exact", "f32", "f32"]);
    assert!(info.details["weights"].as_object().is_some_and(|weights| !weights.is_empty()));
    assert!(info.compute.ends_with(info.details["instruction_set"].as_str().unwrap()), "{}", info.compute);
    let mut short = exact("b", "gguf/llama-q8_0.gguf");
    short.limits.context_length = Some(32);
    let status = runtime.deploy(short).await.unwrap();
    assert_eq!(status.info.unwrap().context_length, Some(32));
    let ask = |model| {
        let runtime = &runtime;
        async move { collect(runtime.chat(RequestContext::local(), greedy(model)).await.unwrap()).await.unwrap() }
    };
    let (first, _) = tokio::join!(ask("a"), ask("b"));
    assert_eq!(first.usage.prompt_tokens, 4);
    assert!((1..=6).contains(&first.usage.completion_tokens));
    // The same again, beside nothing: the same text.
    assert_eq!(ask("a").await.choices[0].text, first.choices[0].text);
    runtime.ready(Instant::now() + Duration::from_secs(60)).await.unwrap();
    runtime.undeploy("a", Duration::from_secs(60)).await.unwrap();
    assert_eq!(runtime.list().len(), 1);
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_broken_file_is_the_reason_of_the_failure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.gguf");
    let whole = std::fs::read(fixture("gguf/llama-q8_0.gguf")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let runtime = Runtime::open(options(None)).await.unwrap();
    for error in [
        runtime.deploy(DeploymentSpec::new("a", &path)).await.unwrap_err(),
        runtime.inspect(&path).await.unwrap_err(),
    ] {
        assert!(error.message().contains("cut.gguf"), "{error}");
    }
    assert!(runtime.list().is_empty());
}

#[tokio::test]
async fn a_cache_too_small_for_one_context_is_refused_with_the_numbers() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let mut spec = exact("a", "llama-tied-f32");
    spec.limits.cache_bytes = Some(1000);
    let error = runtime.deploy(spec).await.unwrap_err();
    assert!(error.message().contains("1000") || error.message().contains("cache"), "{error}");
    // The estimate of one context is enough for one.
    let inspection = runtime.inspect(&fixture("llama-tied-f32")).await.unwrap();
    for (name, compute, factor) in [("b", Compute::Fast, 1), ("c", Compute::Exact, 2)] {
        let mut spec = DeploymentSpec::new(name, fixture("mistral-window-bf16"));
        let need = runtime.inspect(&spec.model).await.unwrap().memory.context_bytes;
        (spec.compute, spec.limits.cache_bytes) = (compute, Some(need * factor));
        runtime.deploy(spec).await.unwrap();
    }
    assert!(inspection.memory.context_bytes > 1000);
}

#[tokio::test]
async fn inspect_tells_what_is_there_and_where_defaults_come_from() {
    let inspection = byzerllm_runtime::inspect(&fixture("gguf/qwen2-mixed.gguf")).await.unwrap();
    assert_eq!(inspection.format, "gguf v3");
    assert_eq!(inspection.info.architectures, ["Qwen2ForCausalLM"]);
    assert!(inspection.types.len() > 1, "{:?}", inspection.types);
    let bytes: u64 = inspection.types.values().map(|summary| summary.bytes).sum();
    assert_eq!(bytes, inspection.tensors.iter().map(|tensor| tensor.bytes).sum::<u64>());
    assert!(inspection.parameters > 1000);
    let memory = &inspection.memory;
    assert!(memory.fits && memory.weight_bytes > 0 && memory.cache_bytes >= memory.context_bytes);
    assert!(inspection.effective.iter().all(|value| value.origin == Origin::FrontEnd));
    let legacy = |name: &str| inspection.effective_legacy.iter().find(|value| value.name == name).unwrap();
    assert_eq!(legacy("max_tokens").value, 1024);
    let directory = byzerllm_runtime::inspect(&fixture("llama-sharded-bf16")).await.unwrap();
    assert_eq!(directory.format, "safetensors");
}

#[tokio::test]
async fn a_default_length_is_cut_to_the_context_and_a_callers_own_is_refused() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let mut spec = exact("short", "gguf/llama-q8_0.gguf");
    spec.limits.context_length = Some(32);
    spec.defaults.max_tokens = Some(100);
    runtime.deploy(spec).await.unwrap();
    let ask = |request: ChatRequest| runtime.chat(RequestContext::local(), request);
    let own = ChatRequest {
        sampling: Sampling { max_tokens: Some(100), ..greedy("short").sampling },
        ..greedy("short")
    };
    let default =
        ChatRequest { sampling: Sampling { max_tokens: None, ..own.sampling.clone() }, ..own.clone() };
    let answer = collect(ask(default).await.unwrap()).await.unwrap();
    assert!((1..=28).contains(&answer.usage.completion_tokens));
    let refusal = ask(own.clone()).await.err().unwrap();
    assert_eq!(refusal.kind(), ErrorKind::TooLarge);
    assert!(refusal.message().contains("32") && refusal.message().contains("104"), "{refusal}");
    let legacy = ChatRequest { front_end: FrontEnd::Legacy, ..own };
    assert!(collect(ask(legacy).await.unwrap()).await.unwrap().usage.completion_tokens <= 28);
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn the_engine_tells_what_it_does() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    runtime.deploy(exact("a", "llama-tied-f32")).await.unwrap();
    let mut long = greedy("a");
    long.input = Input::Tokens((0..80).map(|id| 5 + id % 40).collect());
    let mut spent = 0;
    for _ in 0..2 {
        let stream = runtime.chat(RequestContext::local(), long.clone()).await.unwrap();
        spent += u64::from(collect(stream).await.unwrap().usage.completion_tokens);
    }
    // The engine's thread counts a step after it has told the answer's end.
    let metrics = loop {
        let metrics = runtime.metrics().remove(0);
        if metrics.engine.is_some_and(|engine| engine.generated_tokens == spent && engine.blocks_used == 0) {
            break metrics;
        }
        tokio::task::yield_now().await;
    };
    let engine = metrics.engine.unwrap();
    assert_eq!((metrics.prompt_tokens, metrics.generated_tokens), (160, spent));
    assert_eq!((engine.prompt_tokens, engine.generated_tokens), (160, spent));
    assert!(metrics.prefix_hit_tokens >= 32, "{metrics:?}");
    assert_eq!(engine.prefix_hit_tokens, metrics.prefix_hit_tokens);
    assert!(engine.steps >= spent - 2 && engine.computed_tokens >= 80 + spent - 2, "{engine:?}");
    assert!(engine.blocks_total > engine.blocks_cached && engine.blocks_cached > 0, "{engine:?}");
    assert_eq!(metrics.first_token.count(), 2);
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_type_that_contradicts_the_checkpoint_is_refused_before_loading() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let of = |word: &str| {
        let mut spec = exact("chat", "llama-tied-f32");
        spec.labels.insert("pretrained_model_type".to_owned(), word.into());
        spec
    };
    let error = runtime.deploy(of("custom/baichuan2")).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("pretrained_model_type")));
    for words in ["llama-tied-f32", "'custom/baichuan2'", "LlamaForCausalLM", "'llama' or 'custom/auto'"] {
        assert!(error.message().contains(words), "{words}: {error}");
    }
    runtime.deploy(of("custom/llama2")).await.unwrap();
    runtime.undeploy("chat", Duration::from_secs(60)).await.unwrap();
    runtime.shutdown(Duration::from_secs(60)).await;
}
