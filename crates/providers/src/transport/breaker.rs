//! A circuit breaker: a deployment that keeps failing is left alone for a while.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row open the breaker.
pub(crate) const FAILURES: u32 = 5;
/// So long it stays open before one attempt may probe.
pub(crate) const OPEN: Duration = Duration::from_secs(10);

/// What a breaker lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// One attempt, which decides.
    HalfOpen,
}

impl BreakerState {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The breaker of one deployment.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Failures in a row. Below [`FAILURES`] the breaker is closed.
    failures: AtomicU32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    until: Option<Instant>,
    probing: bool,
}

/// Leave for one attempt, whose outcome it must be told. Dropping it untold gives a probe back.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Option<Arc<Breaker>>,
    probe: bool,
}

impl Breaker {
    /// Asks for leave.
    ///
    /// # Errors
    /// How long the breaker stays open.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Permit, Duration> {
        let probe = if self.failures.load(Ordering::Relaxed) < FAILURES {
            false
        } else {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let left = open.until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                Some(left) if !left.is_zero() => return Err(left),
                Some(_) if open.probing => return Err(Duration::from_secs(1)),
                Some(_) => open.probing = true,
                // Closed by another attempt's success meanwhile.
                None => {}
            }
            open.probing
        };
        Ok(Permit { breaker: Some(Arc::clone(self)), probe })
    }

    /// What it would let pass now.
    pub(crate) fn state(&self) -> BreakerState {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return BreakerState::Closed;
        }
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.until {
            Some(until) if until > Instant::now() => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
            None => BreakerState::Closed,
        }
    }
}

impl Permit {
    /// The vendor works.
    pub(crate) fn well(mut self) {
        let Some(breaker) = self.breaker.take() else { return };
        if breaker.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            *breaker.open.lock().unwrap_or_else(PoisonError::into_inner) = Open::default();
        }
    }

    /// The vendor does not work.
    pub(crate) fn ill(mut self) {
        let Some(breaker) = self.breaker.take() else { return };
        // Counts from its bound on no further, so that it cannot wrap.
        let failures = breaker
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| Some(failures.saturating_add(1)))
            .map_or(u32::MAX, |before| before.saturating_add(1));
        if failures >= FAILURES {
            let mut open = breaker.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Attempts that began before it opened do not prolong it.
            if self.probe || open.until.is_none() {
                *open = Open { until: Some(Instant::now() + OPEN), probing: false };
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take()
            && self.probe
        {
            breaker.open.lock().unwrap_or_else(PoisonError::into_inner).probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_probes_and_closes() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..FAILURES - 1 {
            breaker.enter().unwrap().ill();
        }
        breaker.enter().unwrap().well();
        for _ in 0..FAILURES {
            assert_eq!(breaker.state(), BreakerState::Closed);
            breaker.enter().unwrap().ill();
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.enter().unwrap_err(), OPEN);

        tokio::time::advance(OPEN).await;
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let probe = breaker.enter().unwrap();
        assert!(breaker.enter().is_err(), "one probe at a time");
        drop(probe);
        let probe = breaker.enter().unwrap();
        probe.ill();
        assert_eq!(breaker.enter().unwrap_err(), OPEN);

        tokio::time::advance(OPEN).await;
        breaker.enter().unwrap().well();
        assert_eq!(breaker.state(), BreakerState::Closed);
        let (one, two) = (breaker.enter().unwrap(), breaker.enter().unwrap());
        one.ill();
        two.well();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
