//! What all attempts at one request consumed together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use byzerllm_core::{RequestContext, Usage, UsageHook};

/// Adds up attempts and tells the sum once.
pub(super) struct Tally {
    state: Mutex<State>,
}

struct State {
    attempts: Vec<Option<Usage>>,
    /// Taken when the sum is told.
    hook: Option<UsageHook>,
    told: Option<Usage>,
}

/// One attempt's place in a tally.
#[derive(Clone)]
pub(super) struct Attempt {
    tally: Arc<Tally>,
    place: usize,
}

impl Tally {
    /// An empty one, which takes over the context's hook.
    pub(super) fn new(context: &mut RequestContext) -> Arc<Self> {
        let state = State { attempts: Vec::new(), hook: context.on_usage.take(), told: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Another attempt begins.
    pub(super) fn attempt(self: &Arc<Self>) -> Attempt {
        let mut state = self.lock();
        state.attempts.push(None);
        Attempt { tally: Arc::clone(self), place: state.attempts.len() - 1 }
    }

    /// The sum so far; nothing when no attempt is known to have consumed anything.
    pub(super) fn sum(&self) -> Option<Usage> {
        self.lock().sum()
    }

    /// Ends the tally: tells the sum, once, and gives it. What becomes known later is not told.
    pub(super) fn close(&self) -> Usage {
        let mut state = self.lock();
        if let Some(told) = &state.told {
            return told.clone();
        }
        let sum = state.sum().unwrap_or_default();
        state.told = Some(sum.clone());
        let hook = state.hook.take();
        drop(state);
        if let Some(hook) = hook {
            hook(&sum);
        }
        sum
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sum(&self) -> Option<Usage> {
        let mut known = self.attempts.iter().flatten();
        let mut sum = known.next()?.clone();
        known.for_each(|usage| sum.add(usage));
        Some(sum)
    }
}

impl Attempt {
    /// The attempt consumed so much.
    pub(super) fn spent(&self, usage: &Usage) {
        self.tally.lock().attempts[self.place] = Some(usage.clone());
    }

    /// What is known of the attempt.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.tally.lock().attempts[self.place].clone()
    }

    /// Hears what the attempt consumed, also when it is dropped.
    pub(super) fn hook(&self) -> UsageHook {
        let attempt = self.clone();
        Arc::new(move |usage| attempt.spent(usage))
    }
}

/// Closes a tally, when anything was consumed, for a request that ends without an answer or is dropped.
pub(super) struct Closing {
    pub(super) tally: Arc<Tally>,
    /// Whether the sum is told even when it is nothing: an answer had begun.
    pub(super) begun: bool,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if self.begun || self.tally.sum().is_some() {
            self.tally.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use byzerllm_core::UsageSource;

    use super::*;

    #[test]
    fn attempts_add_up_and_are_told_once() {
        let told: Arc<Mutex<Vec<Usage>>> = Arc::default();
        let hears = Arc::clone(&told);
        let mut context = RequestContext::local();
        context.on_usage = Some(Arc::new(move |usage| hears.lock().unwrap().push(usage.clone())));
        let tally = Tally::new(&mut context);
        assert!(context.on_usage.is_none() && tally.sum().is_none());
        let usage = |prompt_tokens, source| Usage { prompt_tokens, source, ..Usage::default() };
        let (first, second, _third) = (tally.attempt(), tally.attempt(), tally.attempt());
        first.hook()(&usage(5, UsageSource::Estimated));
        second.spent(&usage(7, UsageSource::Reported));
        second.spent(&usage(8, UsageSource::Reported));
        let closing = Closing { tally: Arc::clone(&tally), begun: false };
        assert_eq!(tally.close(), usage(13, UsageSource::Estimated), "the sum is as uncertain as its parts");
        first.spent(&usage(100, UsageSource::Reported));
        drop(closing);
        assert_eq!(*told.lock().unwrap(), [usage(13, UsageSource::Estimated)]);
    }
}
