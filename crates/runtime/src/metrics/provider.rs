//! Numbers of vendors' models, added up.

use byzerllm_providers::ProviderMetrics;

/// The numbers of both; the circuit breaker is the later one's.
pub(super) fn add(earlier: ProviderMetrics, later: ProviderMetrics) -> ProviderMetrics {
    let mut failures = earlier.failures;
    for (kind, number) in later.failures {
        match failures.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum += number,
            None => failures.push((kind, number)),
        }
    }
    ProviderMetrics {
        requests: earlier.requests + later.requests,
        attempts: earlier.attempts + later.attempts,
        retries: earlier.retries + later.retries,
        failures,
        shed: earlier.shed + later.shed,
        dropped: earlier.dropped + later.dropped,
        unreported: earlier.unreported + later.unreported,
        breaker: later.breaker,
    }
}

#[cfg(test)]
mod tests {
    use byzerllm_core::ErrorKind;
    use byzerllm_providers::BreakerState;

    use super::*;

    #[test]
    fn counters_add_up_and_the_breaker_is_the_later_one() {
        let earlier = ProviderMetrics {
            requests: 1,
            attempts: 2,
            retries: 3,
            failures: vec![(ErrorKind::Upstream, 4)],
            shed: 5,
            dropped: 6,
            unreported: 7,
            breaker: BreakerState::Open,
        };
        let later = ProviderMetrics {
            failures: vec![(ErrorKind::RateLimited, 1), (ErrorKind::Upstream, 1)],
            breaker: BreakerState::Closed,
            ..earlier
        };
        let both = ProviderMetrics {
            requests: 2,
            attempts: 4,
            retries: 6,
            failures: vec![(ErrorKind::Upstream, 5), (ErrorKind::RateLimited, 1)],
            shed: 10,
            dropped: 12,
            unreported: 14,
            breaker: BreakerState::Closed,
        };
        assert_eq!(add(earlier, later), both);
    }
}
