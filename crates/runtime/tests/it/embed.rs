//! Requests for vectors: the same admission, measuring, deadline and drain as chats have.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use byzerllm_core::{
    EmbeddingInput, EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, ModelHandle,
    RequestContext, Result, Usage,
};
use byzerllm_runtime::{
    DeploymentSpec, Inspection, LoadContext, LoadedModel, Loader, LocalLoader, MemoryNeed, Runtime, Worker,
};
use tokio::sync::Semaphore;

use crate::{embedded, spec};

/// Gives each input the vector of its length, once a permit is there.
struct Lengths {
    permits: Semaphore,
    running: AtomicUsize,
    short: AtomicBool,
}

impl Lengths {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(permits),
            running: AtomicUsize::new(0),
            short: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl EmbeddingModel for Lengths {
    async fn embed(&self, request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings> {
        assert!(context.on_usage.is_none(), "the runtime tells the usage");
        self.running.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        let usage = Usage { prompt_tokens: request.inputs.len() as u32, ..Usage::default() };
        if request.dimensions == Some(0) {
            return Err(Error::invalid("dimensions", "dimensions must be at least 1").with_usage(usage));
        }
        let length = |input: &EmbeddingInput| match input {
            EmbeddingInput::Text(text) => vec![text.len() as f32],
            EmbeddingInput::Tokens(ids) => vec![ids.len() as f32],
        };
        let skipped = usize::from(self.short.load(Ordering::SeqCst));
        let vectors = request.inputs.iter().skip(skipped).map(length).collect();
        Ok(Embeddings { vectors, usage, notices: Vec::new() })
    }
}

/// Models that another loader makes, without what embeds.
struct WithoutVectors(Arc<dyn Loader>);

impl Loader for WithoutVectors {
    fn need(&self, spec: &DeploymentSpec) -> Result<MemoryNeed> {
        self.0.need(spec)
    }

    fn load(&self, spec: &DeploymentSpec, context: &LoadContext) -> Result<LoadedModel> {
        let mut model = self.0.load(spec, context)?;
        model.handle.embed = None;
        Ok(model)
    }

    fn inspect(&self, path: &Path) -> Result<Inspection> {
        self.0.inspect(path)
    }
}

struct LengthsLoader(Arc<Lengths>);

impl Loader for LengthsLoader {
    fn need(&self, _: &DeploymentSpec) -> Result<MemoryNeed> {
        Ok(MemoryNeed::default())
    }

    fn load(&self, _: &DeploymentSpec, _: &LoadContext) -> Result<LoadedModel> {
        let handle = ModelHandle {
            info: Arc::default(),
            defaults: Default::default(),
            chat: None,
            embed: Some(self.0.clone()),
            rerank: None,
        };
        Ok(LoadedModel { handle, worker: Arc::new(Nothing) })
    }

    fn inspect(&self, path: &Path) -> Result<Inspection> {
        LocalLoader.inspect(path)
    }
}

struct Nothing;

#[async_trait]
impl Worker for Nothing {
    async fn probe(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    fn shutdown(&self) {}
}

async fn lengths(permits: usize) -> (Runtime, Arc<Lengths>) {
    let model = Lengths::new(permits);
    let runtime = embedded(Arc::new(LengthsLoader(model.clone()))).await;
    let mut spec = spec("emb");
    spec.limits.concurrency = Some(1);
    spec.limits.queue_limit = Some(1);
    runtime.deploy(spec).await.unwrap();
    (runtime, model)
}

fn request(texts: &[&str]) -> EmbeddingRequest {
    EmbeddingRequest {
        model: "emb".to_owned(),
        inputs: texts.iter().map(|text| EmbeddingInput::Text((*text).to_owned())).collect(),
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    }
}

fn ended(runtime: &Runtime, word: &str) -> u64 {
    let metrics = runtime.metrics();
    metrics[0].requests.iter().find(|(name, _)| *name == word).unwrap().1
}

#[tokio::test]
async fn vectors_come_in_the_order_of_the_inputs_and_are_counted() {
    let (runtime, _model) = lengths(8).await;
    let told: Arc<Mutex<Vec<Usage>>> = Arc::default();
    let hook = Arc::clone(&told);
    let context = RequestContext {
        on_usage: Some(Arc::new(move |usage: &Usage| hook.lock().unwrap().push(usage.clone()))),
        ..RequestContext::local()
    };
    let embeddings = runtime.embed(context, request(&["a", "four", ""])).await.unwrap();
    assert_eq!(embeddings.vectors, [[1.0], [4.0], [0.0]]);
    assert_eq!(told.lock().unwrap().iter().map(|usage| usage.prompt_tokens).collect::<Vec<_>>(), [3]);
    let metrics = runtime.metrics().remove(0);
    assert_eq!((metrics.prompt_tokens, metrics.running, metrics.waiting), (3, 0, 0));
    assert_eq!((ended(&runtime, "stop"), metrics.queue.count()), (1, 1));
}

#[tokio::test]
async fn failures_are_counted_with_what_they_cost() {
    let (runtime, model) = lengths(8).await;
    let failing = EmbeddingRequest { dimensions: Some(0), ..request(&["a", "b"]) };
    let error = runtime.embed(RequestContext::local(), failing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!((ended(&runtime, "invalid_request"), runtime.metrics()[0].prompt_tokens), (1, 2));
    let error = runtime.embed(RequestContext::local(), request(&[])).await.unwrap_err();
    assert_eq!(error.param(), Some("input"));
    model.short.store(true, Ordering::SeqCst);
    let error = runtime.embed(RequestContext::local(), request(&["a", "b"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upstream, "{error}");
    let missing = EmbeddingRequest { model: "none".to_owned(), ..request(&["a"]) };
    assert_eq!(
        runtime.embed(RequestContext::local(), missing).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let chat = byzerllm_core::ChatRequest::new("emb", byzerllm_core::Input::Text("x".to_owned()));
    let refused = runtime.chat(RequestContext::local(), chat).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_model_that_chats_makes_no_vectors() {
    let talks = byzerllm_runtime::testing::ScriptedLoader::answering("x");
    let runtime = embedded(Arc::new(WithoutVectors(talks))).await;
    runtime.deploy(spec("emb")).await.unwrap();
    let error = runtime.embed(RequestContext::local(), request(&["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn so_many_run_so_many_wait_and_the_rest_is_refused() {
    let (runtime, model) = lengths(0).await;
    let ask = || {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.embed(RequestContext::local(), request(&["a"])).await })
    };
    let (first, second) = (ask(), ask());
    while runtime.metrics()[0].waiting != 1 || model.running.load(Ordering::SeqCst) != 1 {
        tokio::task::yield_now().await;
    }
    let error = runtime.embed(RequestContext::local(), request(&["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    model.permits.add_permits(2);
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_deadline_and_a_removal_end_it() {
    let (runtime, model) = lengths(0).await;
    let context = RequestContext { deadline: Some(Instant::now()), ..RequestContext::local() };
    let error = runtime.embed(context, request(&["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    let asked = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.embed(RequestContext::local(), request(&["a"])).await }
    });
    while model.running.load(Ordering::SeqCst) != 2 {
        tokio::task::yield_now().await;
    }
    runtime.undeploy("emb", Duration::ZERO).await.unwrap();
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
