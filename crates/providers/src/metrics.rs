//! What a deployment has done, in numbers that are read without waiting.

use std::sync::atomic::{AtomicU64, Ordering};

use byzerllm_core::ErrorKind;

pub use crate::transport::BreakerState;

/// The numbers of one deployment, since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderMetrics {
    /// Requests that were well formed.
    pub requests: u64,
    /// Messages sent to the vendor, or tried to.
    pub attempts: u64,
    /// Attempts after the first one of a request.
    pub retries: u64,
    /// Attempts that failed, by kind; kinds that did not occur are left out.
    pub failures: Vec<(ErrorKind, u64)>,
    /// Requests refused at once because the circuit breaker was open.
    pub shed: u64,
    /// Answers that nobody waited for to their end.
    pub dropped: u64,
    /// Answers whose tokens the vendor did not report, or not credibly.
    pub unreported: u64,
    /// What the circuit breaker lets pass now.
    pub breaker: BreakerState,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) attempts: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) shed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) unreported: AtomicU64,
    failures: [AtomicU64; ErrorKind::ALL.len()],
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn failed(&self, kind: ErrorKind) {
        if let Some(at) = ErrorKind::ALL.iter().position(|other| *other == kind) {
            count(&self.failures[at]);
        }
    }

    pub(crate) fn read(&self, breaker: BreakerState) -> ProviderMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failures =
            ErrorKind::ALL.iter().zip(&self.failures).map(|(kind, counter)| (*kind, load(counter)));
        ProviderMetrics {
            requests: load(&self.requests),
            attempts: load(&self.attempts),
            retries: load(&self.retries),
            failures: failures.filter(|(_, number)| *number > 0).collect(),
            shed: load(&self.shed),
            dropped: load(&self.dropped),
            unreported: load(&self.unreported),
            breaker,
        }
    }
}
