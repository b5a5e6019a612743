//! Numbers about a running engine, kept in atomics so that reading them never waits.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::scheduler::Occupancy;

/// A snapshot of an engine's numbers. Counters count from the engine's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct EngineMetrics {
    /// Sequences in work.
    pub running: usize,
    /// Requests that wait for their first step, and sequences that wait again after they were preempted.
    pub waiting: usize,
    /// Cache blocks.
    pub blocks_total: usize,
    /// Cache blocks that a sequence references.
    pub blocks_used: usize,
    /// Cache blocks that are kept for their content only.
    pub blocks_cached: usize,
    /// Steps computed.
    pub steps: u64,
    /// Requests accepted.
    pub requests: u64,
    /// Prompt tokens of started requests.
    pub prompt_tokens: u64,
    /// Prompt tokens that came from the prefix cache.
    pub prefix_hit_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens computed by the network, repeated work after preemption included.
    pub computed_tokens: u64,
    /// Times that a sequence gave its blocks back.
    pub preemptions: u64,
}

/// The living numbers behind [`EngineMetrics`].
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) running: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) blocks_total: AtomicUsize,
    pub(crate) blocks_used: AtomicUsize,
    pub(crate) blocks_cached: AtomicUsize,
    pub(crate) steps: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) prefix_hit_tokens: AtomicU64,
    pub(crate) generated_tokens: AtomicU64,
    pub(crate) computed_tokens: AtomicU64,
    pub(crate) preemptions: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

impl Gauges {
    pub(crate) fn set_occupancy(&self, occupancy: Occupancy) {
        self.running.store(occupancy.running, Ordering::Relaxed);
        self.waiting.store(occupancy.waiting, Ordering::Relaxed);
        self.blocks_total.store(occupancy.total, Ordering::Relaxed);
        self.blocks_used.store(occupancy.used, Ordering::Relaxed);
        self.blocks_cached.store(occupancy.cached, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> EngineMetrics {
        EngineMetrics {
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            blocks_total: self.blocks_total.load(Ordering::Relaxed),
            blocks_used: self.blocks_used.load(Ordering::Relaxed),
            blocks_cached: self.blocks_cached.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            prefix_hit_tokens: self.prefix_hit_tokens.load(Ordering::Relaxed),
            generated_tokens: self.generated_tokens.load(Ordering::Relaxed),
            computed_tokens: self.computed_tokens.load(Ordering::Relaxed),
            preemptions: self.preemptions.load(Ordering::Relaxed),
        }
    }
}
