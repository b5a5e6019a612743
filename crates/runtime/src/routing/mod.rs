//! Several deployments behind one name.
//!
//! A route is a model whose answers are those of other deployments, which it looks up by name at every request. Each of
//! its attempts goes through its target's own door: places, rates, defaults, metrics and ledger are the target's. The
//! caller sees one stream that keeps the contract of [`byzerllm_core::Event`], whoever answers in it.

mod attempt;
mod choice;
mod deployments;
mod graph;
mod policy;
mod resume;
mod spec;
mod stream;
mod tally;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::{
    ChatModel, ChatRequest, EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, EventStream,
    GenerationDefaults, Message, ModelHandle, ModelInfo, Notice, RequestContext, RerankModel, RerankRequest,
    RerankScores, Result, Takeover,
};
use futures::future::BoxFuture;
use serde_json::json;

use crate::loader::{LoadedModel, Worker};
use crate::metrics::{RouteCounters, RouteMetrics, count};
use attempt::Search;
use choice::Chooser;
pub(crate) use choice::Standing;
pub(crate) use deployments::Deployments;
pub(crate) use graph::{Node, check};
pub use spec::{AfterFirst, Fallback, RouteSpec, Target};
use stream::Answer;
use tally::{Closing, Tally};

/// How many routes a request may come through.
pub(crate) const MAX_DEPTH: u8 = 4;
/// [`ModelInfo::engine`] of a route.
pub(crate) const ENGINE: &str = "route";

/// The deployments that routes lead to.
#[async_trait]
pub(crate) trait Targets: Send + Sync {
    /// How a deployment stands at present.
    fn standing(&self, name: &str) -> Standing;

    /// The model of a deployment.
    fn model(&self, name: &str) -> Result<ModelHandle>;

    /// Asks a deployment as any caller does.
    async fn chat(&self, name: &str, request: ChatRequest, context: RequestContext) -> Result<EventStream>;

    /// Asks a deployment for vectors as any caller does.
    async fn embed(
        &self,
        name: &str,
        request: EmbeddingRequest,
        context: RequestContext,
    ) -> Result<Embeddings>;

    /// Asks a deployment for scores as any caller does.
    async fn rerank(
        &self,
        name: &str,
        request: RerankRequest,
        context: RequestContext,
    ) -> Result<RerankScores>;
}

/// A route that takes requests.
pub(crate) struct Route {
    name: Arc<str>,
    spec: RouteSpec,
    chooser: Chooser,
    targets: Arc<dyn Targets>,
    counters: RouteCounters,
}

/// Opens a route. Its targets may come and go.
pub(crate) fn open(name: &str, spec: &RouteSpec, targets: Arc<dyn Targets>) -> LoadedModel {
    let listed: Vec<_> = spec
        .targets
        .iter()
        .map(|target| json!({"deployment": target.deployment, "weight": target.weight}))
        .collect();
    let info = ModelInfo {
        engine: ENGINE.to_owned(),
        details: [("targets".to_owned(), listed.into())].into_iter().collect(),
        ..ModelInfo::default()
    };
    let route = Arc::new(Route {
        name: name.into(),
        chooser: Chooser::new(&spec.targets),
        spec: spec.clone(),
        targets,
        counters: RouteCounters::default(),
    });
    let worker = Arc::new(Watched(Arc::clone(&route)));
    let router = Arc::new(Router(route));
    let handle = ModelHandle {
        info: Arc::new(info),
        defaults: GenerationDefaults::default(),
        chat: Some(router.clone()),
        embed: Some(router.clone()),
        rerank: Some(router),
    };
    LoadedModel { handle, worker }
}

/// A route has no threads; whether its targets answer is theirs to tell.
struct Watched(Arc<Route>);

#[async_trait]
impl Worker for Watched {
    async fn probe(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn route_metrics(&self) -> Option<RouteMetrics> {
        Some(self.0.counters.read())
    }

    fn shutdown(&self) {}
}

impl Route {
    fn target(&self, place: usize) -> &str {
        self.spec.targets.get(place).map_or("", |target| target.deployment.as_str())
    }

    fn standing(&self, place: usize) -> Standing {
        self.targets.standing(self.target(place))
    }

    fn order(&self) -> Vec<usize> {
        self.chooser.order(|place| self.standing(place))
    }

    /// The order for a fresh request.
    fn first_order(&self, context: &RequestContext) -> Result<Vec<usize>> {
        if context.hops >= MAX_DEPTH {
            let message = format!(
                "'{}' is reached through {MAX_DEPTH} routes already; let routes lead to models sooner",
                self.name
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let order = self.order();
        if order.is_empty() {
            return Err(self.nobody());
        }
        Ok(order)
    }

    /// What the declaration and the caller both allow.
    fn takeover(&self, context: &RequestContext) -> Takeover {
        self.spec.fallback.takeover().min(context.takeover)
    }

    /// The models of the targets that have one.
    fn models(&self) -> impl Iterator<Item = Arc<dyn ChatModel>> {
        self.spec.targets.iter().filter_map(|target| self.targets.model(&target.deployment).ok()?.chat)
    }

    /// The answer of the first target that has one.
    fn first<T>(&self, ask: impl Fn(&dyn ChatModel) -> Result<T>) -> Result<T> {
        let mut outcome = Err(self.nobody());
        for model in self.models() {
            outcome = ask(&*model);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn nobody(&self) -> Error {
        let names: Vec<&str> = self.spec.targets.iter().map(|target| target.deployment.as_str()).collect();
        let message = format!("no target of '{}' takes requests: {}", self.name, names.join(", "));
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// The face of a route that callers see.
struct Router(Arc<Route>);

#[async_trait]
impl ChatModel for Router {
    async fn chat(&self, request: ChatRequest, mut context: RequestContext) -> Result<EventStream> {
        let route = &self.0;
        let order = route.first_order(&context)?;
        let takeover = route.takeover(&context);
        let tally = Tally::new(&mut context);
        let closing = Closing { tally: Arc::clone(&tally), begun: false };
        let search = Search { route, context: &context, takeover, tally: &tally };
        let mut asked = Vec::new();
        match search.begin(order, &mut asked, |_| Ok(request.clone())).await {
            Ok(begun) => {
                let choices = request.n;
                let answer =
                    Answer::new(Arc::clone(route), request, context, takeover, asked, begun, closing);
                Ok(byzerllm_core::testing::checked(answer.into_stream(), choices))
            }
            Err(error) => Err(match tally.sum() {
                Some(usage) => error.with_usage(usage),
                None => error,
            }),
        }
    }

    fn apply_template(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.0.first(|model| model.apply_template(messages, add_generation_prompt))
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        self.0.first(|model| model.tokenize(text))
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String> {
        self.0.first(|model| model.detokenize(ids))
    }

    async fn count_tokens(&self, request: &ChatRequest) -> Result<u32> {
        let mut outcome = Err(self.0.nobody());
        let models: Vec<_> = self.0.models().collect();
        for model in models {
            outcome = model.count_tokens(request).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Its targets do.
    fn accounts(&self) -> bool {
        true
    }
}

impl Route {
    /// Asks one target after the other for an answer in one piece, and says who gave it when it was not the first.
    async fn ask<'a, T>(
        &'a self,
        context: &RequestContext,
        ask: impl Fn(&'a str, RequestContext) -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<(T, Option<Notice>)> {
        let order = self.first_order(context)?;
        let takeover = self.takeover(context);
        let expected = order.first().copied();
        let mut failures = Vec::new();
        for target in order {
            let name = self.target(target);
            let context =
                RequestContext { hops: context.hops + 1, takeover, on_usage: None, ..context.clone() };
            match ask(name, context.clone()).await {
                Ok(answer) => {
                    self.chooser.answered(target);
                    let other = expected != Some(target);
                    if other {
                        count(&self.counters.fallbacks);
                    }
                    return Ok((answer, other.then(|| Notice::FailedOver { to: name.to_owned() })));
                }
                Err(error) => {
                    self.chooser.failed(target, &error);
                    let late = context.deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let over = takeover < Takeover::BeforeFirst
                        || !policy::another_may_do_better(error.kind())
                        || late;
                    if over {
                        return Err(error);
                    }
                    failures.push((name, error));
                }
            }
        }
        Err(policy::combined(&self.name, failures))
    }
}

#[async_trait]
impl EmbeddingModel for Router {
    async fn embed(&self, request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings> {
        let targets = &self.0.targets;
        let ask = |name, context| targets.embed(name, request.clone(), context);
        let (mut embeddings, notice) = self.0.ask(&context, ask).await?;
        embeddings.notices.extend(notice);
        Ok(embeddings)
    }

    /// Its targets do.
    fn accounts(&self) -> bool {
        true
    }
}

#[async_trait]
impl RerankModel for Router {
    async fn rerank(&self, request: RerankRequest, context: RequestContext) -> Result<RerankScores> {
        let targets = &self.0.targets;
        let ask = |name, context| targets.rerank(name, request.clone(), context);
        let (mut scores, notice) = self.0.ask(&context, ask).await?;
        scores.notices.extend(notice);
        Ok(scores)
    }

    /// Its targets do.
    fn accounts(&self) -> bool {
        true
    }
}
