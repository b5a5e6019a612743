//! Adapters of a deployment through our own engine: named in requests, kept across restarts, loaded while it runs.

use std::path::PathBuf;
use std::time::Duration;

use byzerllm_core::{ChatRequest, ErrorKind, Input, RequestContext, collect};
use byzerllm_runtime::{Compute, DeploymentSpec, Runtime, UsageBy};

use crate::{embedded, options, spec};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures"))
        .canonicalize()
        .unwrap()
        .join(name)
}

fn with_adapters(adapters: &[&str]) -> DeploymentSpec {
    let mut spec = DeploymentSpec::new("chat", fixture("qwen2-bf16"));
    spec.compute = Compute::Exact;
    for name in adapters {
        spec.adapters.insert((*name).to_owned(), fixture(&format!("adapters/{name}")));
    }
    spec
}

fn greedy(model: &str) -> ChatRequest {
    let mut request = ChatRequest::new(model, Input::Tokens((5..45).collect()));
    request.sampling.temperature = Some(0.0);
    request.sampling.max_tokens = Some(12);
    request.sampling.ignore_end = Some(true);
    request
}

async fn text(runtime: &Runtime, model: &str) -> byzerllm_core::Result<String> {
    let stream = runtime.chat(RequestContext::local(), greedy(model)).await?;
    Ok(collect(stream).await?.choices.remove(0).text)
}

fn names(runtime: &Runtime) -> Vec<String> {
    runtime.adapters("chat").unwrap().into_iter().map(|adapter| adapter.name).collect()
}

#[tokio::test]
async fn a_model_name_with_a_colon_asks_an_adapter() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    runtime.deploy(with_adapters(&["patterns", "stable"])).await.unwrap();
    let (base, first, second) =
        tokio::join!(text(&runtime, "chat"), text(&runtime, "chat:patterns"), text(&runtime, "chat:stable"));
    let (base, first, second) = (base.unwrap(), first.unwrap(), second.unwrap());
    assert!(base != first && first != second && base != second);
    assert_eq!(text(&runtime, "chat:patterns").await.unwrap(), first);
    let adapters = runtime.adapters("chat").unwrap();
    assert_eq!((adapters[0].requests, adapters[1].requests, adapters[0].rank), (2, 1, 8));
    assert!(adapters[0].bytes > 0 && adapters[0].path.ends_with("adapters/patterns"));
    // The model of an adapter is its deployment's.
    assert_eq!(
        runtime.tokenize("chat:patterns", "hello").unwrap(),
        runtime.tokenize("chat", "hello").unwrap()
    );
    assert_eq!(runtime.status("chat:stable").unwrap().spec.name, "chat");
    // What does not exist is named with the nearest.
    for model in ["chat:pattern", "chat:", "chat:a:b"] {
        let error = text(&runtime, model).await.unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::NotFound, Some("model")));
        assert!(error.message().contains("patterns, stable"), "{error}");
        assert_eq!(runtime.model(model).err().unwrap().kind(), ErrorKind::NotFound);
    }
    assert!(text(&runtime, "chat:pattern").await.unwrap_err().message().contains("did you mean 'patterns'"));
    assert_eq!(text(&runtime, "other:patterns").await.unwrap_err().kind(), ErrorKind::NotFound);
    // The ledger names the deployment, and what of it answered.
    let metrics = runtime.metrics();
    assert_eq!(metrics.len(), 1);
    assert_eq!((metrics[0].deployment.as_str(), metrics[0].adapters.len()), ("chat", 2));
    let report = runtime.ledger().usage(UsageBy::Deployment, None).unwrap();
    assert!(report.rows.iter().all(|row| row.name == "chat"), "{report:?}");
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn adapters_are_loaded_and_unloaded_and_come_back() {
    let state = tempfile::tempdir().unwrap();
    let runtime = Runtime::open(options(Some(state.path().to_path_buf()))).await.unwrap();
    runtime.deploy(with_adapters(&["patterns"])).await.unwrap();
    let patterns = text(&runtime, "chat:patterns").await.unwrap();
    let loaded = runtime.load_adapter("chat", "late", &fixture("adapters/stable")).await.unwrap();
    assert_eq!((loaded.name.as_str(), loaded.rank, loaded.modules), ("late", 40, 4));
    let late = text(&runtime, "chat:late").await.unwrap();
    assert_eq!(names(&runtime), ["late", "patterns"]);
    for (name, path, kind, word) in [
        ("late", fixture("adapters/stable"), ErrorKind::Conflict, "already"),
        ("other", fixture("adapters/neox"), ErrorKind::InvalidRequest, "gpt_neox"),
        ("other", fixture("adapters/nothing"), ErrorKind::NotFound, "nothing"),
        ("a:b", fixture("adapters/stable"), ErrorKind::InvalidRequest, "':'"),
        ("other", PathBuf::from("stable"), ErrorKind::InvalidRequest, "absolute"),
    ] {
        let error = runtime.load_adapter("chat", name, &path).await.unwrap_err();
        assert!(error.kind() == kind && error.message().contains(word), "{name}: {error}");
    }
    let error = runtime.load_adapter("nobody", "late", &fixture("adapters/stable")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    runtime.unload_adapter("chat", "patterns").await.unwrap();
    assert_eq!(runtime.unload_adapter("chat", "patterns").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&runtime), ["late"]);
    assert_eq!(text(&runtime, "chat:patterns").await.unwrap_err().kind(), ErrorKind::NotFound);
    runtime.shutdown(Duration::from_secs(60)).await;

    let runtime = Runtime::open(options(Some(state.path().to_path_buf()))).await.unwrap();
    while runtime.list().iter().any(|status| status.state.as_str() == "loading") {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&runtime), ["late"], "as they were at the end");
    assert_eq!(text(&runtime, "chat:late").await.unwrap(), late);
    runtime.load_adapter("chat", "patterns", &fixture("adapters/patterns")).await.unwrap();
    assert_eq!(text(&runtime, "chat:patterns").await.unwrap(), patterns);
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn kept_answers_belong_to_their_adapter() {
    let runtime = Runtime::open(options(None)).await.unwrap();
    let mut spec = with_adapters(&["patterns"]);
    spec.limits.answer_cache_entries = Some(10);
    runtime.deploy(spec).await.unwrap();
    let base = text(&runtime, "chat").await.unwrap();
    let first = text(&runtime, "chat:patterns").await.unwrap();
    assert_ne!(base, first);
    assert_eq!(text(&runtime, "chat:patterns").await.unwrap(), first);
    // Another adapter under the same name has answers of its own.
    runtime.unload_adapter("chat", "patterns").await.unwrap();
    runtime.load_adapter("chat", "patterns", &fixture("adapters/stable")).await.unwrap();
    assert_ne!(text(&runtime, "chat:patterns").await.unwrap(), first);
    runtime.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn what_cannot_have_adapters_says_so() {
    let runtime = embedded(byzerllm_runtime::testing::ScriptedLoader::answering("hello")).await;
    // The colon is what tells an adapter from a deployment, so that no deployment has one in its name.
    let error = runtime.deploy(spec("chat:french")).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("name")));
    runtime.deploy(spec("chat")).await.unwrap();
    let error = text(&runtime, "chat:french").await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("none is loaded"), "{error}");
    let mut vendor = DeploymentSpec::of_provider("gpt", "openai");
    vendor.set("saas.api_key", "env:PATH").unwrap();
    vendor.set("saas.model", "gpt").unwrap();
    vendor.adapters.insert("french".to_owned(), "/adapters/french".into());
    let error = runtime.deploy(vendor).await.unwrap_err();
    assert!(error.param() == Some("adapters"), "{error}");
    let broken = Runtime::open(options(None)).await.unwrap();
    let mut other = with_adapters(&[]);
    other.adapters.insert("neox".to_owned(), fixture("adapters/neox"));
    let error = broken.deploy(other).await.unwrap_err();
    assert!(error.message().contains("gpt_neox"), "{error}");
    assert!(broken.list().is_empty());
    // A model that makes vectors has none either.
    broken.deploy(DeploymentSpec::new("chat", fixture("encoders/bert-mean"))).await.unwrap();
    let error = broken.load_adapter("chat", "french", &fixture("adapters/stable")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
