//! What a runtime counts about each of its deployments.
//!
//! Numbers belong to a name. They are made when a deployment of the name is listed, go on when another one replaces
//! it, and end with the last of the name; a request for a name that does not exist counts nowhere. Counting takes
//! atomics only: [`Measured`] follows a request and holds its deployment's [`Numbers`].

mod histogram;
mod measured;
mod provider;
mod route;

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use byzerllm_core::{ErrorKind, FinishReason, Usage};
use byzerllm_engine::EngineMetrics;
use byzerllm_providers::ProviderMetrics;

pub use histogram::Histogram;
pub(crate) use measured::{Accepted, Measured, Observed};
pub use route::RouteMetrics;
pub(crate) use route::{RouteCounters, count};

use crate::adapters::AdapterInfo;
use crate::loader::Worker;
use histogram::Durations;

/// How an answer may end well.
const COMPLETE: [&str; 4] = ["stop", "length", "tool_calls", "content_filter"];
const OUTCOMES: usize = COMPLETE.len() + ErrorKind::ALL.len();

/// How a request ended: a place in the table of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(usize);

impl Outcome {
    pub(crate) const CANCELLED: Self = Self::failed(ErrorKind::Cancelled);
    /// An answer in one piece.
    pub(crate) const ANSWERED: Self = Self::finished(&FinishReason::Stop);

    pub(crate) const fn failed(kind: ErrorKind) -> Self {
        Self(COMPLETE.len() + kind as usize)
    }

    pub(crate) const fn finished(reason: &FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self(0),
            FinishReason::Length => Self(1),
            FinishReason::ToolCalls => Self(2),
            FinishReason::ContentFilter => Self(3),
            FinishReason::Cancelled => Self::CANCELLED,
            FinishReason::Error(detail) => Self::failed(detail.kind),
        }
    }

    pub(crate) fn is_complete(self) -> bool {
        self.0 < COMPLETE.len()
    }

    /// The word of the finish reason, or the code of the error.
    pub(crate) fn as_str(self) -> &'static str {
        match COMPLETE.get(self.0) {
            Some(word) => word,
            None => ErrorKind::ALL[self.0 - COMPLETE.len()].code(),
        }
    }
}

/// The living numbers of one name.
#[derive(Debug)]
pub(crate) struct Numbers {
    requests: [AtomicU64; OUTCOMES],
    waiting: AtomicU64,
    running: AtomicU64,
    prompt_tokens: AtomicU64,
    prefix_hit_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    kept_hits: AtomicU64,
    kept_misses: AtomicU64,
    queue: Durations,
    first_token: Durations,
    between_tokens: Durations,
    duration: Durations,
    engines: Mutex<Engines>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            requests: array::from_fn(|_| AtomicU64::new(0)),
            waiting: AtomicU64::new(0),
            running: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            prefix_hit_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            kept_hits: AtomicU64::new(0),
            kept_misses: AtomicU64::new(0),
            queue: Durations::long(),
            first_token: Durations::long(),
            between_tokens: Durations::short(),
            duration: Durations::long(),
            engines: Mutex::default(),
        }
    }
}

/// The engines behind a name: one, and while one replaces another both.
#[derive(Default)]
struct Engines {
    live: Vec<Arc<dyn Worker>>,
    /// The counters of those that ended.
    ended: Option<EngineMetrics>,
    /// The same of vendors' models.
    providers_ended: Option<ProviderMetrics>,
    /// The same of routes.
    routes_ended: Option<RouteMetrics>,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Engines").field("live", &self.live.len()).finish_non_exhaustive()
    }
}

impl Engines {
    fn total(&self) -> Option<EngineMetrics> {
        let live = self.live.iter().filter_map(|worker| worker.metrics());
        self.ended.into_iter().chain(live).reduce(add)
    }

    /// The circuit breaker's state is that of the newest.
    fn providers(&self) -> Option<ProviderMetrics> {
        let live = self.live.iter().filter_map(|worker| worker.provider_metrics());
        self.providers_ended.clone().into_iter().chain(live).reduce(provider::add)
    }

    fn routes(&self) -> Option<RouteMetrics> {
        let live = self.live.iter().filter_map(|worker| worker.route_metrics());
        self.routes_ended.into_iter().chain(live).reduce(route::add)
    }
}

fn add(a: EngineMetrics, b: EngineMetrics) -> EngineMetrics {
    EngineMetrics {
        running: a.running + b.running,
        waiting: a.waiting + b.waiting,
        blocks_total: a.blocks_total + b.blocks_total,
        blocks_used: a.blocks_used + b.blocks_used,
        blocks_cached: a.blocks_cached + b.blocks_cached,
        steps: a.steps + b.steps,
        requests: a.requests + b.requests,
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        prefix_hit_tokens: a.prefix_hit_tokens + b.prefix_hit_tokens,
        generated_tokens: a.generated_tokens + b.generated_tokens,
        computed_tokens: a.computed_tokens + b.computed_tokens,
        preemptions: a.preemptions + b.preemptions,
    }
}

/// An engine that ended runs nothing and has no blocks; what it counted stays counted.
fn counters(metrics: EngineMetrics) -> EngineMetrics {
    EngineMetrics { running: 0, waiting: 0, blocks_total: 0, blocks_used: 0, blocks_cached: 0, ..metrics }
}

impl Numbers {
    /// An engine begins to answer under this name.
    pub(crate) fn engine_began(&self, worker: &Arc<dyn Worker>) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).live.push(Arc::clone(worker));
    }

    /// An engine has stopped. Telling it twice is harmless.
    pub(crate) fn engine_ended(&self, worker: &Arc<dyn Worker>) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = engines.live.iter().position(|live| Arc::ptr_eq(live, worker)) else { return };
        let gone = engines.live.remove(place);
        engines.ended = engines.ended.into_iter().chain(gone.metrics().map(counters)).reduce(add);
        let before = engines.providers_ended.take();
        engines.providers_ended = before.into_iter().chain(gone.provider_metrics()).reduce(provider::add);
        engines.routes_ended =
            engines.routes_ended.into_iter().chain(gone.route_metrics()).reduce(route::add);
    }

    /// A request looked for a kept answer.
    pub(crate) fn looked_for_kept(&self, found: bool) {
        count(if found { &self.kept_hits } else { &self.kept_misses });
    }

    fn spend(&self, usage: &Usage) {
        for (counter, tokens) in [
            (&self.prompt_tokens, usage.prompt_tokens),
            (&self.prefix_hit_tokens, usage.cached_tokens),
            (&self.generated_tokens, usage.completion_tokens),
        ] {
            counter.fetch_add(u64::from(tokens), Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self, deployment: &str, ready: bool) -> DeploymentMetrics {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let requests = self.requests.iter().enumerate();
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        DeploymentMetrics {
            deployment: deployment.to_owned(),
            ready,
            requests: requests.map(|(place, count)| (Outcome(place).as_str(), read(count))).collect(),
            waiting: read(&self.waiting),
            running: read(&self.running),
            prompt_tokens: read(&self.prompt_tokens),
            prefix_hit_tokens: read(&self.prefix_hit_tokens),
            generated_tokens: read(&self.generated_tokens),
            kept_hits: read(&self.kept_hits),
            kept_misses: read(&self.kept_misses),
            queue: self.queue.snapshot(),
            first_token: self.first_token.snapshot(),
            between_tokens: self.between_tokens.snapshot(),
            duration: self.duration.snapshot(),
            engine: engines.total(),
            provider: engines.providers(),
            route: engines.routes(),
            adapters: Vec::new(),
        }
    }
}

/// What a runtime counted under one name. All but `ready`, `waiting`, `running` and the gauges of the engine only grow
/// while a deployment of this name exists.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentMetrics {
    /// The name.
    pub deployment: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// Requests that ended, by finish reason or error code; every outcome is there, most often with 0. With several
    /// choices it is the first one's reason, unless one failed.
    pub requests: Vec<(&'static str, u64)>,
    /// Requests that wait for a place.
    pub waiting: u64,
    /// Requests that hold a place.
    pub running: u64,
    /// Prompt tokens of requests that ended, those from the prefix cache included.
    pub prompt_tokens: u64,
    /// Prompt tokens of requests that ended that came from the prefix cache.
    pub prefix_hit_tokens: u64,
    /// Tokens generated for requests that ended.
    pub generated_tokens: u64,
    /// Requests that a kept answer served.
    pub kept_hits: u64,
    /// Requests that looked for a kept answer and found none.
    pub kept_misses: u64,
    /// How long requests that got a place waited for it.
    pub queue: Histogram,
    /// From a request's arrival to the first piece of its answer.
    pub first_token: Histogram,
    /// Between two pieces of a choice's answer.
    pub between_tokens: Histogram,
    /// From a request's arrival to the end of a complete answer.
    pub duration: Histogram,
    /// The engine's own numbers, of all engines that answered under this name; `None` for a model without an engine.
    pub engine: Option<EngineMetrics>,
    /// What was counted on the way to the vendor, of all models that answered under this name; `None` for models that
    /// are no vendor's.
    pub provider: Option<ProviderMetrics>,
    /// What was counted on the way to the targets, of all routes that answered under this name; `None` for what is no
    /// route.
    pub route: Option<RouteMetrics>,
    /// The adapters of the model that answers now.
    pub adapters: Vec<AdapterInfo>,
}

#[cfg(test)]
mod tests {
    use byzerllm_core::ErrorDetail;

    use super::*;

    #[test]
    fn outcomes_are_finish_reasons_and_error_codes() {
        for kind in ErrorKind::ALL {
            assert_eq!(Outcome::failed(kind).as_str(), kind.code());
            assert!(!Outcome::failed(kind).is_complete());
            let reason = FinishReason::Error(ErrorDetail { kind, message: String::new() });
            assert_eq!(Outcome::finished(&reason), Outcome::failed(kind));
        }
        for reason in [
            FinishReason::Stop,
            FinishReason::Length,
            FinishReason::ToolCalls,
            FinishReason::ContentFilter,
            FinishReason::Cancelled,
        ] {
            let outcome = Outcome::finished(&reason);
            assert_eq!(outcome.as_str(), reason.as_str());
            assert_eq!(outcome.is_complete(), reason != FinishReason::Cancelled);
        }
    }
}
