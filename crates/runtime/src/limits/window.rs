//! What started in the last minute.
//!
//! Time is cut into slots of a quarter of a second. A slot counts until all of it is a minute old, so that no sixty
//! seconds ever hold more than the limits; a place becomes free up to one slot late. The memory is that of 241 slots.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const SLOT: Duration = Duration::from_millis(250);
/// Slots after which the last instant of one is a minute old.
const LIFE: u64 = 60_000 / 250 + 1;

/// What the last minute holds, and what it may hold.
#[derive(Debug)]
pub(super) struct Window {
    requests_limit: u64,
    tokens_limit: u64,
    began: Instant,
    slots: VecDeque<Slot>,
    requests: u64,
    tokens: u64,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    requests: u64,
    tokens: u64,
}

/// A request that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    slot: u64,
    /// The tokens that it counts.
    pub(super) tokens: u64,
}

impl Window {
    /// An empty minute that may hold so much; [`u64::MAX`] is no limit.
    pub(super) fn new(requests_limit: u64, tokens_limit: u64) -> Self {
        Self {
            requests_limit,
            tokens_limit,
            began: Instant::now(),
            slots: VecDeque::new(),
            requests: 0,
            tokens: 0,
        }
    }

    /// Lets a request of at most so many tokens through, or says when to ask again. One that exceeds the limit by itself
    /// passes alone.
    pub(super) fn enter(&mut self, now: Instant, tokens: u64) -> Result<Entry, Instant> {
        let number = self.expire(now);
        let tokens = tokens.min(self.tokens_limit);
        if let Some(until) = self.full_until(tokens) {
            return Err(until);
        }
        match self.slots.back_mut() {
            Some(slot) if slot.number == number => {
                slot.requests += 1;
                slot.tokens += tokens;
            }
            _ => self.slots.push_back(Slot { number, requests: 1, tokens }),
        }
        self.requests += 1;
        self.tokens += tokens;
        Ok(Entry { slot: number, tokens })
    }

    /// Whether a small request would be let through.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.full_until(1).is_none()
    }

    /// When a request of so many tokens could pass if nobody else came.
    pub(super) fn free_at(&mut self, now: Instant, tokens: u64) -> Instant {
        self.expire(now);
        self.full_until(tokens.min(self.tokens_limit)).unwrap_or(now)
    }

    /// Replaces what was thought of a request by what is known.
    pub(super) fn correct(&mut self, entry: &mut Entry, tokens: u64) {
        let entry = std::mem::replace(entry, Entry { slot: entry.slot, tokens });
        let Ok(place) = self.slots.binary_search_by_key(&entry.slot, |slot| slot.number) else { return };
        let slot = &mut self.slots[place];
        slot.tokens = slot.tokens.saturating_sub(entry.tokens).saturating_add(tokens);
        self.tokens = self.tokens.saturating_sub(entry.tokens).saturating_add(tokens);
    }

    /// Forgets what is a minute old; the number of the present slot.
    fn expire(&mut self, now: Instant) -> u64 {
        let past = now.saturating_duration_since(self.began);
        let number = u64::try_from(past.as_millis() / SLOT.as_millis()).unwrap_or(u64::MAX);
        while let Some(slot) = self.slots.front().filter(|slot| slot.number.saturating_add(LIFE) <= number) {
            self.requests -= slot.requests;
            self.tokens = self.tokens.saturating_sub(slot.tokens);
            self.slots.pop_front();
        }
        number
    }

    /// The end of the slot whose place is needed; nothing when there is room already.
    fn full_until(&self, tokens: u64) -> Option<Instant> {
        let (mut requests, mut spent, mut until) = (self.requests, self.tokens, None);
        let mut slots = self.slots.iter();
        while requests >= self.requests_limit || spent.saturating_add(tokens) > self.tokens_limit {
            let slot = slots.next()?;
            requests -= slot.requests;
            spent = spent.saturating_sub(slot.tokens);
            let end = slot.number.saturating_add(LIFE);
            until = Some(self.began + SLOT * u32::try_from(end).unwrap_or(u32::MAX));
        }
        until
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: u64 = u64::MAX;

    #[tokio::test(start_paused = true)]
    async fn a_minute_holds_so_many_requests() {
        let mut window = Window::new(2, NONE);
        let now = Instant::now();
        assert!(window.enter(now, 1).is_ok() && window.enter(now + Duration::from_secs(10), 1).is_ok());
        let until = window.enter(now + Duration::from_secs(11), 1).unwrap_err();
        let waited = until - now;
        assert!(waited >= Duration::from_secs(60) && waited <= Duration::from_millis(60_250), "{waited:?}");
        assert!(!window.has_room(until - SLOT) && window.has_room(until));
        assert!(window.enter(until, 1).is_ok() && window.enter(until, 1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_thought_is_corrected_by_what_is_known() {
        let mut window = Window::new(NONE, 100);
        let now = Instant::now();
        let mut entry = window.enter(now, 90).unwrap();
        assert!(window.enter(now, 20).is_err());
        window.correct(&mut entry, 50);
        window.correct(&mut entry, 30);
        assert!(window.enter(now, 70).is_ok() && window.enter(now, 1).is_err());
        // A correction that comes when the request is forgotten changes nothing.
        let later = now + Duration::from_secs(120);
        assert!(window.enter(later, 100).is_ok());
        window.correct(&mut entry, 0);
        assert!(window.enter(later, 1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_above_the_limit_passes_alone() {
        let mut window = Window::new(NONE, 100);
        let now = Instant::now();
        assert!(window.enter(now, 5000).is_ok());
        let until = window.enter(now, 1).unwrap_err();
        assert!(window.enter(until, 5000).is_ok());
    }

    proptest! {
        /// Whoever comes whenever: no sixty seconds hold more than the limits.
        #[test]
        fn no_minute_holds_more(
            requests in 1_u64..6,
            tokens in 1_u64..50,
            arrivals in proptest::collection::vec((0_u64..20_000, 0_u64..50), 1..120),
        ) {
            let mut window = Window::new(requests, tokens);
            let mut now = window.began;
            let mut passed: Vec<(Instant, u64)> = Vec::new();
            for (gap, wanted) in arrivals {
                now += Duration::from_millis(gap);
                let wanted = wanted.min(tokens);
                match window.enter(now, wanted) {
                    Ok(_) => passed.push((now, wanted)),
                    Err(until) => {
                        prop_assert!(until > now && until - now <= Duration::from_millis(60_500));
                        now = until;
                        prop_assert!(window.enter(now, wanted).is_ok(), "the time that was told is enough");
                        passed.push((now, wanted));
                    }
                }
            }
            for (start, _) in &passed {
                let within = || passed.iter().filter(|(at, _)| at >= start && *at - *start < Duration::from_secs(60));
                prop_assert!(within().count() as u64 <= requests);
                prop_assert!(within().map(|(_, tokens)| tokens).sum::<u64>() <= tokens);
            }
        }
    }
}
