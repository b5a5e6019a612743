//! Durations, counted in buckets without locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds for what takes from a millisecond to minutes: waiting, a first token, a whole answer. In seconds.
const LONG: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0,
    500.0,
];
/// Bounds for a step of the engine, finest where people see a difference. In seconds.
const SHORT: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0,
];

/// A histogram that many threads fill.
#[derive(Debug)]
pub(super) struct Durations {
    bounds: &'static [f64],
    /// One more than there are bounds: the last holds what exceeds all of them.
    counts: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

impl Durations {
    pub(super) fn long() -> Self {
        Self::new(LONG)
    }

    pub(super) fn short() -> Self {
        Self::new(SHORT)
    }

    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, nanoseconds: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Histogram {
        Histogram {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

/// Durations as they were counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// The largest duration of each bucket but the last, in seconds, ascending.
    pub bounds: &'static [f64],
    /// How many durations fell into each bucket and none before it; one more than there are bounds.
    pub counts: Vec<u64>,
    /// All durations together.
    pub sum: Duration,
}

impl Histogram {
    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for durations in [Durations::long(), Durations::short()] {
            let bounds = durations.bounds;
            assert!(bounds.is_sorted_by(|a, b| a < b));
            for bound in bounds {
                durations.observe(Duration::from_secs_f64(*bound));
                durations.observe(Duration::from_secs_f64(*bound) + Duration::from_nanos(1));
            }
            let snapshot = durations.snapshot();
            let mut expected = vec![2; bounds.len() + 1];
            (expected[0], expected[bounds.len()]) = (1, 1);
            assert_eq!(snapshot.counts, expected);
            let sum = 2.0 * bounds.iter().sum::<f64>() + 1e-9 * bounds.len() as f64;
            assert!((snapshot.sum.as_secs_f64() - sum).abs() < 1e-6, "{snapshot:?}");
            durations.observe(Duration::ZERO);
            durations.observe(Duration::from_secs(1 << 20));
            let snapshot = durations.snapshot();
            assert_eq!((snapshot.counts[0], snapshot.counts[bounds.len()]), (2, 2));
            assert_eq!(snapshot.count(), 2 * bounds.len() as u64 + 2);
        }
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let durations = Durations::short();
        std::thread::scope(|scope| {
            for thread in 1..=4_u64 {
                let durations = &durations;
                scope.spawn(move || (0..1000).for_each(|_| durations.observe(Duration::from_millis(thread))));
            }
        });
        let snapshot = durations.snapshot();
        assert_eq!((snapshot.count(), snapshot.sum), (4000, Duration::from_secs(10)));
    }
}
