//! The queue before the minute, and what is told to those that it cannot serve.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byzerllm_core::{Error, RequestContext, Usage, UsageSource};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::window::{Entry, Window};

/// The rates of one deployment. Requests pass in the order they came.
#[derive(Debug)]
pub(crate) struct Rates {
    window: Mutex<Window>,
    /// Held by the one that waits for the minute to move on; the others wait for it, first come first served.
    turn: tokio::sync::Mutex<()>,
    /// Those that hold it or wait for it.
    waiting: AtomicU32,
    /// A request turned out smaller than it was thought.
    returned: Notify,
    /// The time that passes between two requests at full rate.
    pace: Duration,
    counts_tokens: bool,
}

impl Rates {
    /// The rates of these limits; nothing when there are none.
    pub(crate) fn new(requests_per_minute: Option<u64>, tokens_per_minute: Option<u64>) -> Option<Arc<Self>> {
        if requests_per_minute.is_none() && tokens_per_minute.is_none() {
            return None;
        }
        let window =
            Window::new(requests_per_minute.unwrap_or(u64::MAX), tokens_per_minute.unwrap_or(u64::MAX));
        let pace = requests_per_minute
            .map_or(Duration::ZERO, |requests| Duration::from_secs_f64(60.0 / requests.max(1) as f64));
        Some(Arc::new(Self {
            window: Mutex::new(window),
            turn: tokio::sync::Mutex::default(),
            waiting: AtomicU32::new(0),
            returned: Notify::new(),
            pace,
            counts_tokens: tokens_per_minute.is_some(),
        }))
    }

    /// Whether tokens are limited, so that somebody must guess them.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }

    /// Lets a request through that need not wait.
    pub(crate) fn try_pass(self: &Arc<Self>, tokens: u64) -> Option<Ticket> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let entry = self.window().enter(Instant::now(), tokens).ok()?;
        Some(self.ticket(entry))
    }

    /// Waits until the request may start.
    pub(crate) async fn pass(self: &Arc<Self>, tokens: u64) -> Ticket {
        let _waiting = Waiting::new(&self.waiting);
        let _turn = self.turn.lock().await;
        loop {
            let returned = self.returned.notified();
            let until = match self.window().enter(Instant::now(), tokens) {
                Ok(entry) => return self.ticket(entry),
                Err(until) => until,
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = returned => {}
            }
        }
    }

    /// Whether a small request would start at once.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && self.window().has_room(Instant::now())
    }

    /// How long a request waits when so many wait before it, at least.
    pub(crate) fn wait(&self, tokens: u64, ahead: u32) -> Duration {
        let now = Instant::now();
        let first = self.window().free_at(now, tokens).saturating_duration_since(now);
        first.saturating_add(self.pace.saturating_mul(ahead))
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(self: &Arc<Self>, entry: Entry) -> Ticket {
        Ticket { rates: Arc::clone(self), entry: Arc::new(Mutex::new(entry)) }
    }
}

/// Counts one that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that was let through. Its tokens count as they were guessed until somebody knows better.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    rates: Arc<Rates>,
    entry: Arc<Mutex<Entry>>,
}

impl Ticket {
    /// The request had so many tokens.
    pub(crate) fn correct(&self, tokens: u64) {
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        self.rates.window().correct(&mut entry, tokens);
        drop(entry);
        self.rates.returned.notify_one();
    }

    /// The request had this usage.
    pub(crate) fn spent(&self, usage: &Usage) {
        if usage.source != UsageSource::Unknown {
            self.correct(u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens));
        }
    }

    /// The request failed, with what it is known to have spent.
    pub(crate) fn failed(&self, error: &Error) {
        match error.usage() {
            Some(usage) => self.spent(usage),
            None => self.correct(0),
        }
    }

    /// Corrects itself when the usage of the request is told.
    pub(crate) fn listen(&self, context: &mut RequestContext) {
        if !self.rates.counts_tokens {
            return;
        }
        let (ticket, told) = (self.clone(), context.on_usage.take());
        context.on_usage = Some(Arc::new(move |usage: &Usage| {
            ticket.spent(usage);
            if let Some(told) = &told {
                told(usage);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_first_passes_first() {
        let rates = Rates::new(Some(1), None).unwrap();
        assert!(rates.try_pass(0).is_some() && rates.try_pass(0).is_none());
        let began = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3_u64 {
            let (rates, order) = (Arc::clone(&rates), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                rates.pass(0).await;
                order.lock().unwrap().push((number, began.elapsed().as_secs()));
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [(0, 60), (1, 120), (2, 180)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_answer_lets_the_next_one_in_at_once() {
        let rates = Rates::new(None, Some(100)).unwrap();
        let first = rates.try_pass(100).unwrap();
        let (waiting, began) = (Arc::clone(&rates), Instant::now());
        let next = tokio::spawn(async move {
            waiting.pass(50).await;
            began.elapsed()
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!rates.has_room());
        let heard = Arc::new(AtomicU32::new(0));
        let hears = Arc::clone(&heard);
        let mut context = RequestContext::local();
        context.on_usage = Some(Arc::new(move |usage| hears.store(usage.prompt_tokens, Ordering::SeqCst)));
        first.listen(&mut context);
        let hook = context.on_usage.unwrap();
        hook(&Usage { source: UsageSource::Unknown, ..Usage::default() });
        tokio::task::yield_now().await;
        assert!(!next.is_finished(), "what nobody knows corrects nothing");
        hook(&Usage { prompt_tokens: 30, completion_tokens: 20, ..Usage::default() });
        assert_eq!(next.await.unwrap(), Duration::from_secs(5));
        assert_eq!(heard.load(Ordering::SeqCst), 30, "whoever listened before still hears it");
        assert!(rates.try_pass(1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_told_beforehand() {
        let rates = Rates::new(Some(2), None).unwrap();
        assert_eq!(rates.wait(0, 0), Duration::ZERO);
        rates.try_pass(0).unwrap();
        rates.try_pass(0).unwrap();
        assert_eq!(rates.wait(0, 0), Duration::from_millis(60_250));
        assert_eq!(rates.wait(0, 2), Duration::from_millis(120_250));
    }
}
