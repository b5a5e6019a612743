//! Numbers of routes.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a route has counted since it was deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteMetrics {
    /// Answers of another target than the one whose turn it was, which failed before its first piece.
    pub fallbacks: u64,
    /// Answers that another target went on with half way.
    pub continued: u64,
    /// Answers that another target began again half way.
    pub restarted: u64,
    /// Requests for which a second target was asked because the first one was slow.
    pub hedges: u64,
    /// Those of them that the second target answered first.
    pub hedges_won: u64,
}

/// The numbers while they are counted.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    pub(crate) fallbacks: AtomicU64,
    pub(crate) continued: AtomicU64,
    pub(crate) restarted: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl RouteCounters {
    pub(crate) fn read(&self) -> RouteMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RouteMetrics {
            fallbacks: load(&self.fallbacks),
            continued: load(&self.continued),
            restarted: load(&self.restarted),
            hedges: load(&self.hedges),
            hedges_won: load(&self.hedges_won),
        }
    }
}

/// The numbers of both.
pub(super) fn add(earlier: RouteMetrics, later: RouteMetrics) -> RouteMetrics {
    RouteMetrics {
        fallbacks: earlier.fallbacks + later.fallbacks,
        continued: earlier.continued + later.continued,
        restarted: earlier.restarted + later.restarted,
        hedges: earlier.hedges + later.hedges,
        hedges_won: earlier.hedges_won + later.hedges_won,
    }
}
