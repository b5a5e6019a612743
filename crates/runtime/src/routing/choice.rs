//! Whom to ask first, and whom then.
//!
//! Shares follow smooth weighted round robin: the sequence is the same every time, and with the weights 3 and 1 it is
//! `a a b a`, not `a a a b`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind};
use tokio::time::Instant;

use super::Target;

/// How long a target that failed is asked last, at most.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// How a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It would begin at once.
    Free,
    /// A request would wait.
    Full,
    /// Its circuit breaker is open: a request would be refused.
    Broken,
    /// It takes no requests: it loads, failed, is being removed or does not exist.
    Absent,
}

/// The order in which targets are asked, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// It failed a moment ago and said, or lets guess, that it will fail again.
    resting: bool,
    /// It has no share.
    reserve: bool,
    full: bool,
}

/// Keeps the shares of a route's targets.
#[derive(Debug)]
pub(super) struct Chooser {
    weights: Vec<u32>,
    state: Mutex<Vec<Share>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// Grows by the weight at each choice, and falls by the sum of weights when chosen.
    credit: i64,
    rests_until: Option<Instant>,
}

impl Chooser {
    pub(super) fn new(targets: &[Target]) -> Self {
        let weights: Vec<u32> = targets.iter().map(|target| target.weight).collect();
        Self { state: Mutex::new(vec![Share::default(); weights.len()]), weights }
    }

    /// The places of all targets that are there, in the order in which a request asks them: the one whose turn it is
    /// among the best ones, then by rank and as they are listed.
    pub(super) fn order(&self, standing: impl Fn(usize) -> Standing) -> Vec<usize> {
        let standings: Vec<Standing> = (0..self.weights.len()).map(standing).collect();
        let now = Instant::now();
        let mut shares = self.shares();
        let mut ranked: Vec<(Rank, usize)> = Vec::with_capacity(standings.len());
        for (place, standing) in standings.into_iter().enumerate() {
            if standing == Standing::Absent {
                continue;
            }
            let rank = Rank {
                resting: standing == Standing::Broken
                    || shares[place].rests_until.is_some_and(|until| until > now),
                reserve: self.weights[place] == 0,
                full: standing == Standing::Full,
            };
            ranked.push((rank, place));
        }
        ranked.sort_unstable();
        let Some(&(best, _)) = ranked.first() else { return Vec::new() };
        let equals = ranked.iter().take_while(|(rank, _)| *rank == best).map(|(_, place)| *place);
        if let Some(turn) = self.turn(&mut shares, equals) {
            let at = ranked.iter().position(|(_, place)| *place == turn).unwrap_or(0);
            let first = ranked.remove(at);
            ranked.insert(0, first);
        }
        ranked.into_iter().map(|(_, place)| place).collect()
    }

    /// The one of these whose turn it is.
    fn turn(&self, shares: &mut [Share], places: impl Iterator<Item = usize>) -> Option<usize> {
        let (mut best, mut total): (Option<usize>, i64) = (None, 0);
        for place in places {
            let weight = i64::from(self.weights[place]);
            total += weight;
            shares[place].credit += weight;
            if best.is_none_or(|best| shares[place].credit > shares[best].credit) {
                best = Some(place);
            }
        }
        shares[best?].credit -= total;
        best
    }

    /// A target failed: for a moment the others come before it, when it would fail again.
    pub(super) fn failed(&self, place: usize, error: &Error) {
        let rest = match (error.retry_after(), error.kind()) {
            (Some(after), ErrorKind::RateLimited | ErrorKind::Overloaded | ErrorKind::Unavailable) => after,
            // A wrong credential does not become right by itself.
            (_, ErrorKind::Unauthenticated) => LONGEST_REST,
            _ => return,
        };
        self.shares()[place].rests_until = Some(Instant::now() + rest.min(LONGEST_REST));
    }

    /// A target answers.
    pub(super) fn answered(&self, place: usize) {
        self.shares()[place].rests_until = None;
    }

    fn shares(&self) -> MutexGuard<'_, Vec<Share>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::RouteSpec;
    use super::*;

    fn chooser(targets: &str) -> Chooser {
        Chooser::new(&RouteSpec::parse_targets(targets).unwrap())
    }

    fn free(_: usize) -> Standing {
        Standing::Free
    }

    #[test]
    fn shares_are_exact_and_smooth() {
        let chooser = chooser("a=3,b=1");
        let firsts: Vec<usize> = (0..8).map(|_| chooser.order(free)[0]).collect();
        assert_eq!(firsts, [0, 0, 1, 0, 0, 0, 1, 0]);
        let chooser = super::Chooser::new(&RouteSpec::parse_targets("a=5,b=2,c=7").unwrap());
        let mut counts = [0; 3];
        for _ in 0..140 {
            counts[chooser.order(free)[0]] += 1;
        }
        assert_eq!(counts, [50, 20, 70]);
    }

    #[test]
    fn the_others_follow_as_they_are_listed() {
        let chooser = chooser("a=1,b=1,c=0,d=1");
        assert_eq!(chooser.order(free), [0, 1, 3, 2]);
        assert_eq!(chooser.order(free), [1, 0, 3, 2]);
        assert_eq!(chooser.order(free), [3, 0, 1, 2]);
    }

    #[test]
    fn full_ones_come_after_free_ones_and_absent_ones_are_skipped() {
        let chooser = chooser("a=9,b=1,c=0,d=1");
        let standing = |place| match place {
            0 => Standing::Full,
            1 => Standing::Absent,
            _ => Standing::Free,
        };
        for _ in 0..5 {
            assert_eq!(chooser.order(standing), [3, 0, 2], "a reserve does not relieve one that is full");
        }
        assert!(chooser.order(|_| Standing::Absent).is_empty());
        let broken = |place| if place == 0 { Standing::Broken } else { Standing::Full };
        assert_eq!(chooser.order(broken).last(), Some(&0), "one that would refuse is asked last");
        let reserve_only = |place| if place == 2 { Standing::Full } else { Standing::Absent };
        assert_eq!(chooser.order(reserve_only), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_would_fail_again_rests() {
        let chooser = chooser("a=1,b=1,c=0");
        let busy = |seconds| {
            Error::new(ErrorKind::RateLimited, "slow down").with_retry_after(Duration::from_secs(seconds))
        };
        chooser.failed(0, &busy(3));
        for _ in 0..3 {
            assert_eq!(chooser.order(free), [1, 2, 0]);
        }
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!((0..2).any(|_| chooser.order(free)[0] == 0));
        // Without a time, only what cannot mend itself rests; a long time is cut; an answer ends it.
        chooser.failed(0, &Error::new(ErrorKind::Upstream, "broken"));
        assert!((0..2).any(|_| chooser.order(free)[0] == 0));
        chooser.failed(0, &Error::new(ErrorKind::Unauthenticated, "wrong key"));
        chooser.failed(1, &busy(3600));
        assert_eq!(chooser.order(free)[0], 2);
        chooser.answered(1);
        assert_eq!(chooser.order(free)[0], 1);
        tokio::time::advance(LONGEST_REST).await;
        assert!((0..2).any(|_| chooser.order(free)[0] == 0));
    }
}
